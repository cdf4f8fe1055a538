"""Providers of all kinds, as entries for a run.yaml."""

import ssl
from contextlib import ExitStack
from typing import Any

from tests.certificates import Authority
from tests.ports import deaf_port, refusing_port
from tests.run_yaml import passthrough
from tests.upstream import Upstream
from tests.way import Proxy, TlsFront, listening

type Json = dict[str, Any]

# A name too long for any resolver to ask others about (RFC 1035, section 2.3.4).
NAMELESS = "a." * 150 + "test"
# The port of TCPMUX, which is served nowhere any more.
NOBODY = "http://127.0.0.1:1"


def behind_tls(
    upstream: Upstream, authority: Authority, proxy: Proxy, started: ExitStack
) -> list[Json]:
    """OpenAI's stand-in behind TLS: whom the provider trusts, and who is let in."""
    certificate = authority.issue("127.0.0.1")
    at_most_1_2 = certificate.for_serving()
    at_most_1_2.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts = {
        "": certificate.for_serving(),
        "strict": certificate.for_serving(callers=authority),
        "old": at_most_1_2,
        "elsewhere": authority.issue("elsewhere.test").for_serving(),
    }
    vendor = upstream.openai.port
    fronts = {name: TlsFront(vendor, context) for name, context in contexts.items()}
    started.enter_context(listening(*fronts.values()))
    trusting = {"verify": str(authority.file)}
    newest = trusting | {"min_version": "TLSv1.3"}
    other = {"verify": str(Authority(authority.file.parent, "other").file)}
    mutual = {"client_cert": str(certificate.file)}
    mutual |= {"client_key": str(certificate.key_file)}
    settings: dict[str, tuple[str, Json]] = {
        "tls-trusted": ("", {"tls": trusting}),
        "tls-other-authority": ("", {"tls": other}),
        "tls-default-trust": ("", {}),
        "tls-unverified": ("", {"tls": {"verify": False}}),
        "tls-other-host": ("elsewhere", {"tls": trusting}),
        "tls-newest": ("", {"tls": newest}),
        "tls-mutual": ("strict", {"tls": trusting | mutual}),
        "tls-nameless-caller": ("strict", {"tls": trusting}),
        "tls-too-old": ("old", {"tls": newest}),
        "proxied-tls": ("", {"tls": trusting, "proxy": {"https": proxy.url}}),
    }
    return [
        passthrough(name, f"https://127.0.0.1:{fronts[front].port}", network=network)
        for name, (front, network) in settings.items()
    ]


def behind_a_proxy(upstream: Upstream, proxy: Proxy) -> list[Json]:
    """The same behind a proxy, or not, as `network.proxy` says."""
    named = f"http://user:secret@127.0.0.1:{proxy.port}"
    settings: dict[str, Json] = {
        "proxied": {"url": proxy.url},
        "proxied-by-name": {"url": named},
        "proxied-http": {"http": proxy.url, "https": NOBODY},
        "proxied-https-only": {"https": NOBODY},
        "not-proxied": {"url": NOBODY, "no_proxy": ["127.0.0.1"]},
        "dead-proxy": {"url": NOBODY},
    }
    return [
        passthrough(name, upstream.openai.url, network={"proxy": proxied})
        for name, proxied in settings.items()
    ]


def hard_to_reach(upstream: Upstream, started: ExitStack) -> list[Json]:
    """Upstreams that do not answer, or for which the provider does not wait."""
    refusing = started.enter_context(refusing_port())
    deaf = started.enter_context(deaf_port())
    brief = {"timeout": {"connect": 0.2, "read": 30}}
    impatient = {"timeout": {"connect": 30, "read": 0.5}}
    return [
        passthrough("impatient", upstream.openai.url, network=impatient),
        passthrough("brief", upstream.openai.url, network={"timeout": 1}),
        passthrough("deaf", f"http://127.0.0.1:{deaf}", network=brief),
        passthrough("refusing", f"http://127.0.0.1:{refusing}"),
        passthrough("nameless", f"http://{NAMELESS}"),
    ]


def particular(upstream: Upstream) -> list[Json]:
    """Providers with settings of their own, and one that is Llama Stack's."""
    url = upstream.openai.url
    headers = {"X-Team": "blue", "Accept": "application/json", "openai-project": "p"}
    forwarded = {"token": "Authorization", "tenant": "X-Tenant"}
    return [
        passthrough("versioned", f"{url}/v1/"),
        passthrough("beta", f"{url}/v1beta/openai"),
        passthrough("nested", f"{url}/proxy/path"),
        passthrough("listed", url, allowed_models=["gpt-4o", "m/1"]),
        passthrough("none-listed", url, allowed_models=[]),
        passthrough("small", url, max_request_bytes=1000),
        passthrough("with-key", url, api_key="sk-of-the-operator"),
        passthrough("forwarding", url, forward_headers=forwarded),
        passthrough("with-headers", url, network={"headers": headers}),
        {
            "provider_id": "stock",
            "provider_type": "remote::openai",
            "config": {"base_url": f"{url}/v1"},
        },
    ]
