"""The server of `kerascls serve`. Its packages are the extra `serve`."""

from kerascls.errors import ModelError

try:
    import httptools  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401  Starlette reads forms by it
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as missing:
    raise ModelError(f"kerascls serve needs {missing.name}, which is missing: pip install 'kerascls[serve]'") from None
