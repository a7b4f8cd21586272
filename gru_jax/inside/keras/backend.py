"""Which Keras this is: its layers can only hold our computation where they compute in JAX."""

_FIX = (
    "set the environment variable KERAS_BACKEND=jax before keras is first imported, in the shell or by"
    " os.environ['KERAS_BACKEND'] = 'jax' above every import of keras"
)


def check() -> None:
    """Raises ImportError unless Keras 3 is there and on its JAX backend."""
    who = "gru_jax.inside.keras"
    try:
        import keras
    except ImportError as error:  # Keras is not there, or the framework that its backend is
        fix = "pip install 'keras>=3.10'" if error.name == "keras" else _FIX
        raise ImportError(f"{who}: needs Keras on its JAX backend; import keras says: {error}; {fix}") from error
    if int(keras.__version__.partition(".")[0]) < 3:
        raise ImportError(f"{who}: needs Keras 3; got Keras {keras.__version__}; pip install 'keras>=3.10'")
    if keras.backend.backend() != "jax":
        raise ImportError(f"{who}: needs Keras on its JAX backend; got {keras.backend.backend()!r}; {_FIX}")
