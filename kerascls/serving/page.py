"""The web page on which a served model is tried."""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from pathlib import Path

from kerascls.serving.served import Served

PAGE = Path(__file__).with_name("page.html")


def page_of(served: Sequence[Served]) -> tuple[str, str]:
    """The page, with a choice where there are several models, and the policy by which a browser loads and sends nothing
    but by the page's own text to this server."""
    text = PAGE.read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        inline = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    told = []
    for one in served:
        height, width, _ = one.classifier.image_shape
        facts = f"{len(one.classifier.class_names)} names, from images of {width} x {height} pixels"
        told.append([html.escape(part) for part in (one.name, facts, one.classifier.notice or "")])
    options = "".join(
        f'<option data-facts="{facts}" data-notice="{notice}">{name}</option>' for name, facts, notice in told
    )
    choice = f'<label for="model">Model</label> <select id="model">{options}</select>' if len(told) > 1 else ""
    words = dict(zip(("CHOICE", "NAME", "FACTS", "NOTICE"), (choice, *told[0]), strict=True))
    return re.sub("MODEL_(CHOICE|NAME|FACTS|NOTICE)", lambda found: words[found[1]], text), policy
