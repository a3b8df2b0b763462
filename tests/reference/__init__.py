"""NumPy twins of the native steps, computed in float64 from the definitions in ``cython/kernels/steps.h``."""
