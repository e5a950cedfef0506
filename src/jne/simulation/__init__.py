from jne.simulation.studies import *  # noqa: F403
