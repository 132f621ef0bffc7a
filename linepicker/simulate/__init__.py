"""A world to try policies in: the real router, driven by simulated people against simulated providers, and rivals beside it.

`play` runs one scenario with one chooser; `worlds` holds the models of the provider.
"""

from linepicker.simulate.choosers import Linepicker
from linepicker.simulate.engine import Run, play
from linepicker.simulate.measures import Measures
from linepicker.simulate.oracle import Oracle
from linepicker.simulate.scenario import Scenario, ScenarioError

__all__ = ["Linepicker", "Measures", "Oracle", "Run", "Scenario", "ScenarioError", "play"]
