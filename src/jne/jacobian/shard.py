"""A share of the voxels of a computation, with the bytes that they have in the whole.

The last bits of a row of a matrix product may depend on how many rows are multiplied at once. So
the whole computation is planned, and each shard does some of its blocks.
"""

from dataclasses import replace

from jne.jacobian.plan import Job, Plan


def share_of(plan: Plan, n_voxels: int, shard: tuple[int, int]) -> slice:
    """The voxels of shard k of K, `shard` = (k, K), among those of the whole computation.

    A shard has whole blocks of the plan, or whole groups where there are several; none where there
    are fewer of them than shards.
    """
    k, n_shards = shard
    size = plan.voxel_group if plan.n_groups > 1 else plan.voxel_block
    n_blocks = -(-n_voxels // size)
    start, stop = (n_blocks * i // n_shards * size for i in (k - 1, k))
    return slice(min(start, n_voxels), min(stop, n_voxels))


def restrict_(job: Job, plan: Plan, share: slice) -> Plan:
    """Leave the job these voxels only. Returns its plan, which has the blocks of the whole."""
    if job.analytic:
        # Views: their rows lie in memory as those of the whole do
        job.readout = job.readout[share]
        job.path = None if job.path is None else job.path[share]
        vars(job).pop("product", None)  # the cached one has the rows of all voxels
    else:
        job.outputs, job.chosen = job.outputs[share], True
    job.v = share.stop - share.start
    group = max(min(plan.voxel_group, job.v), 1)
    return replace(
        plan,
        voxel_block=min(plan.voxel_block, group),
        voxel_group=group,
        n_groups=-(-job.v // group),
    )
