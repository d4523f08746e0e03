"""`python -m tools.check`: every check but the tests, as CI runs them. `pip install -e ".[test,docs]"` brings them."""

import subprocess
import sys
import tempfile

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("lint-imports",),
    (sys.executable, "-m", "tools.generate_docs", "--check"),
)


def main() -> int:
    """Runs all checks, also after one that fails. Returns how many failed."""
    with tempfile.TemporaryDirectory() as site:
        results = {
            " ".join(check): subprocess.run(check, check=False).returncode
            for check in (*CHECKS, ("mkdocs", "build", "--strict", "--quiet", "--site-dir", site))
        }
    failed = [name for name, code in results.items() if code]
    print("\n".join(f"failed: {name}" for name in failed) or f"{len(results)} checks passed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
