"""What every engine is tested with, NeuroEdge's own and those of third parties; needs pytest.

A package with an engine writes one class, and gets all tests of the contract:

    from neuroedge.testing.contract import BadInputContract, EngineContract

    class TestGreeting(EngineContract, BadInputContract):
        engines = (Greeting,)

with the plugin `neuroedge.testing.plugin`, which starts a server that has the package installed.
"""
