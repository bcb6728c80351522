"""Every error that edgefetal raises on purpose, in one tree.

    EdgeFetalError                 something the user can mend; the message says how
    |-- InputError                 wrong usage or input                     (exit code 2)
    |   |-- SourceError            a picture, video or folder cannot be read
    |   |-- ScaleError             a pixel size is missing, malformed or absurd
    |   |-- DatasetError           a labelled dataset does not have its layout
    |   |-- BundleError            a bundle is not one, is altered, or is too new
    |   |-- KeyFileError           a signing key, or a folder of trusted keys, cannot be used
    |   |-- StoreError             an exam store is damaged, in use, or none
    |   `-- OutputError            a result cannot be written where it was asked for
    |-- EnvironmentLacksError      a package or device is missing here      (exit code 3)
    |   `-- DeviceLostError        the GPU is lost to this process, which must be started again
    `-- CheckFailedError           the work was done but a check failed     (exit code 1)

The tree lives in the lowest layer because every layer raises from it. A failed measurement is not an error: it is the
value `edgefetal_runtime.biometry.Abstained`.
"""

from typing import ClassVar


class EdgeFetalError(Exception):
    """Base of the tree; `exit_code` is what the command line returns for it."""

    exit_code: ClassVar[int] = 2


class InputError(EdgeFetalError):
    """Wrong usage or input."""


class SourceError(InputError):
    """A picture, video or folder cannot be read."""


class ScaleError(InputError):
    """A pixel size is missing, malformed or absurd."""


class DatasetError(InputError):
    """A labelled dataset does not have its published layout."""


class BundleError(InputError):
    """A bundle is not one, is altered, or is newer than this program."""


class KeyFileError(InputError):
    """A signing key, or a folder of trusted keys, cannot be used as it is."""


class StoreError(InputError):
    """An exam store is damaged, in use by another process, or none at all."""


class OutputError(InputError):
    """A result cannot be written where it was asked for."""


class EnvironmentLacksError(EdgeFetalError):
    """A package or device that the command needs is missing on this machine."""

    exit_code: ClassVar[int] = 3


class DeviceLostError(EnvironmentLacksError):
    """The GPU is lost to this process, which must be started again before anything runs on it."""


class CheckFailedError(EdgeFetalError):
    """The work was done, and a check on its result failed."""

    exit_code: ClassVar[int] = 1
