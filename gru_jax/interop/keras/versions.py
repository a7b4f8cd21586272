"""Which Keras wrote something, and what that decides: the meaning of `hard_sigmoid`, and the options not passed."""

import re
import sys
from typing import NamedTuple

from gru_jax import checks
from gru_jax.types import Options

KERAS_2_HARD_SIGMOID = "keras2_hard_sigmoid"
"""The name here of what Keras 1 and 2 call hard_sigmoid."""


class Version(NamedTuple):
    """A version of Keras.

    Attributes:
      text: as it is written.
      number: as numbers, (2, 2, 4); () of `OF_NEWER_FORMAT` alone.
      in_tensorflow: whether it is of the copy in TensorFlow, "2.2.4-tf".
    """

    text: str
    number: tuple[int, ...]
    in_tensorflow: bool = False


KERAS_3 = Version("3", (3,))

OF_NEWER_FORMAT = Version("2.12 or newer", ())
"""That of a file in the format of 2022 which does not say more: no Keras with other defaults than today's wrote it."""


def parsed(text: object) -> Version | None:
    """A version as Keras writes it, "2.2.4-tf" or "3.15.1"; None for anything else."""
    found = re.match(r"\d{1,4}(\.\d{1,4}){0,3}", text) if isinstance(text, str) and len(text) < 64 else None
    if found is None:
        return None
    return Version(found.string, tuple(map(int, found[0].split("."))), found.string.endswith("-tf"))


def given(who: str, text: object, found: Version | None) -> Version | None:
    """What a file says (`found`), or else the caller's `keras_version=`.

    Raises:
      ValueError: for what is no version, or not the file's.
    """
    if text is None:
        return found
    version = parsed(text)
    if version is None:
        raise ValueError(
            f"{who}: keras_version must be a version of Keras, such as '2.2.4' or '3.15.1';"
            f" got {checks.described(text)}"
        )
    if found is not None and found.number[: len(version.number)] != version.number[: len(found.number)]:
        raise ValueError(
            f"{who}: keras_version={text!r}, but the file says that Keras {found.text} wrote it; leave it out"
        )
    return found if found is not None and len(found.number) > 1 else version


def of_module(name: str) -> Version | None:
    """The version of the loaded Keras that a module belongs to; None when it is of no Keras."""
    root = name.partition(".")[0]
    if root not in ("keras", "tf_keras", "tensorflow"):
        return None
    version = parsed(getattr(sys.modules.get(root), "__version__", None)) if root == "keras" else None
    # tf_keras is Keras 2 for good, and so is what lies inside of TensorFlow.
    return version or (KERAS_3 if root == "keras" else Version("2", (2,), True))


def hard_sigmoid(version: Version | None) -> str | None:
    """The name here of a version's hard_sigmoid: its slope is 1/5 up to Keras 2 and 1/6 from 3 on; None if unknown."""
    if version is None or not version.number:
        return None
    return "hard_sigmoid" if version.number >= (3,) else KERAS_2_HARD_SIGMOID


def defaults(version: Version | None) -> Options:
    """The options of a GRU to which nothing was passed; those that the version leaves open are not there.

    Keras turned to sigmoid in 2.3 and to reset_after=True in 2.4. TensorFlow's copy has both since TensorFlow 2, but
    TensorFlow 1.13 to 2.1 all call it 2.2.4-tf.
    """
    older = {"recurrent_activation": KERAS_2_HARD_SIGMOID, "reset_after": False}
    newer = {"recurrent_activation": "sigmoid", "reset_after": True}
    if version is None or version.number == (2,):
        return {}
    if version is OF_NEWER_FORMAT or version.number >= (2, 4):
        return newer
    if version.in_tensorflow:
        return {} if version.number[:2] == (2, 2) else newer if version.number >= (2, 3) else older
    return older | ({"recurrent_activation": "sigmoid"} if version.number >= (2, 3) else {})


def why_open(version: Version | None) -> str:
    """Why `defaults` leaves options open, for messages."""
    if version is None:
        return "nothing says which Keras wrote it"
    if version.number == (2,):
        return "Keras 2 has had both, sigmoid and reset_after=True since 2.3 and 2.4"
    return f"Keras {version.text} is that of TensorFlow 1.13 to 2.1, and TensorFlow 2 changed the default"


def zeros_at_masked_steps(version: Version | None) -> bool:
    """Whether a Bidirectional's outputs at masked steps are 0, as in TensorFlow's Keras and since 2.4, or held."""
    return version is None or version.in_tensorflow or len(version.number) < 2 or version.number >= (2, 4)
