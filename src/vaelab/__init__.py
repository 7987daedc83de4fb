"""vaelab: variational autoencoders whose likelihood, prior, posterior, bound and networks are independent choices.

Importing the package is cheap: torch and lightning are loaded by the modules that need them, so that ``--help`` and
a mistyped option answer at once.
"""

from vaelab import _torchvision

__version__ = "0.1.0"

_torchvision.install()
