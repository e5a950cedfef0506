"""What whole brains cost: time, memory, disk and money, from measured rates.

python benchmarks/scaling.py [SUBJECTS LAYERS SEEDS ACTIVATIONS]

The tables of docs/scaling.md: 8 subjects x 12 layers x 5 seeds x 4 activations, if nothing else is
said. A stage takes its operations over the product rate of the machine, or its bytes over the rate
of its disk, whichever is more, times SLOWER, what it was measured to take beside that limit (1.5
where it was not). Nothing is measured on the machines named "assumed".
"""

import sys
from dataclasses import dataclass

from whole_brain import N_BRAIN, D, H, limits

N = {"train": 8000, "val": 1000, "test": 1000}
N_EPOCHS = 40
BETAS = 42e9  # bytes of 40 sessions
ONCE = ("prepare", "voxel statistics", "ridge baseline", "components")
START_UP = 7.8  # seconds of a job on two cores, apart from its stages (benchmarks/startup.py)
PREPARE = 40 * 5.2  # seconds: sessions, and a session on two cores
SLOWER = {  # than the limit: docs/scaling.md, measured
    "Jacobians": 1.15,  # benchmarks/jacobian.py rate
    "training": 2.3,
    "training on voxels": 1.3,  # benchmarks/train_whole_brain.py
    "components": 1.9,
    "ridge baseline": 1.7,
    "stacked readout": 1.7,
    "voxel statistics": 2.2,
    "JNE and JNE-SS": 2.6,
    "results": 2.4,
}


@dataclass(frozen=True)
class Machine:
    name: str
    product: float
    """Operations per second, of products in float32."""
    jacobian: float
    """The same for the fastest precision of the Jacobians: int8 on CPUs, bfloat16 on GPUs."""
    disk: float
    """Bytes per second."""
    price: float
    """US dollars per hour, to rent. An assumption: put in yours."""


TWO_CORES = 260e9  # operations a second, as benchmarks/rivals.py prints them
MACHINES = (
    Machine("2 cores with AVX-512", TWO_CORES, 3.1 * TWO_CORES, 0.9e9, 0.09),
    Machine(
        "node of 64 cores, assumed", 0.7 * 32 * TWO_CORES, 0.7 * 32 * 3.1 * TWO_CORES, 2e9, 2.7
    ),
    Machine("one H100, assumed", 0.6 * 67e12, 0.5 * 800e12, 2e9, 3.0),
)


def seconds(machine: Machine, fast: bool, space: str) -> dict[str, float]:
    """Of each stage of one run. space: as of `trainer.response_space`."""
    found = {}
    for stage, (operations, read, written) in limits(N, N_BRAIN, N_EPOCHS, BETAS).items():
        rate = machine.jacobian if fast and stage.startswith("Jacobians") else machine.product
        if space == "voxels" and stage == "training":
            weights = D * H + 2 * H * H + H * N_BRAIN
            operations = N_EPOCHS * (6 * N["train"] + 2 * N["val"]) * weights
        if space == "voxels" and stage == "components":
            continue
        bound = max(operations / rate, (read + written) / machine.disk)
        slower = SLOWER.get(f"{stage} on {space}", SLOWER.get(stage, 1.5))
        found[stage] = PREPARE if stage == "prepare" else slower * bound
    return found


def main(subjects: int, layers: int, seeds: int, activations: int) -> None:
    data = subjects * layers
    runs = data * seeds * activations
    print(f"{subjects} subjects x {layers} layers x {seeds} seeds x {activations} activations: ")
    print(f"{runs} runs on {data} prepared folders, {N_BRAIN} voxels\n")
    first = MACHINES[0]
    print(f"Seconds of a stage ({first.name}):\n\n| stage | once per prepared folder | per run |")
    print("| --- | --- | --- |")
    stages = seconds(first, False, "components")
    in_voxels = seconds(first, False, "voxels")["training"]
    for stage, taken in stages.items():
        once, every = (f"{taken:.0f}", "") if stage in ONCE else ("", f"{taken:.0f}")
        note = f" ({in_voxels:.0f} on voxels)" if stage == "training" else ""
        print(f"| {stage} | {once} | {every}{note} |")
    print("\n| machine | precision | one run | all, one machine | dollars |\n" + "| --- " * 5 + "|")
    for machine in MACHINES:
        for fast in (False, True):
            stages = seconds(machine, fast, "components")
            once = sum(stages[name] for name in ONCE)
            run = START_UP + sum(taken for name, taken in stages.items() if name not in ONCE)
            total = (data * once + runs * run) / 3600
            precision = "float32" if not fast else "bfloat16" if "H100" in machine.name else "int8"
            print(
                f"| {machine.name} | {precision} | {run / 60:.1f} min | {total / 24:.1f} days | "
                f"{total * machine.price:,.0f} |"
            )
    out = 4e-9 * N["test"] * N_BRAIN
    weights = 4e-9 * N_BRAIN * (H + D)
    prepared = 4e-9 * sum(N.values()) * N_BRAIN + 4e-9 * N["train"] * (N["train"] + N["val"])
    n, train = sum(N.values()), N["train"]
    products = 8e-9 * train * (train + N["val"])
    print(
        f"\nMemory: encoder {weights:.1f} GB; once, products of the responses {products:.1f} GB "
        f"and their factor {8e-9 * train**2:.1f} GB; components {4e-9 * n * train:.1f} GB; "
        f"Jacobians within jacobian.max_memory_gb."
    )
    print(
        f"\nDisk: {prepared:.1f} GB per prepared folder, {data * prepared / 1000:.2f} TB in all; "
        f"{5 * out + weights:.1f} GB per run (five arrays of {out:.1f} GB, the encoder "
        f"{weights:.1f} GB), {runs * (5 * out + weights) / 1000:.1f} TB in all."
    )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:5]) if sys.argv[1:] else (8, 12, 5, 4))
