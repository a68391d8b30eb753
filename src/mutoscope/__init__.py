"""The live data plane of a microscope."""
