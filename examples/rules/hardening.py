"""Adds the header fields of a careful server, and takes away those that tell what runs here.

What the application sets itself stays as it is: it knows its pages. Strict-Transport-Security is
for HTTPS only (RFC 6797 7.2). Begin with Content-Security-Policy-Report-Only if the pages have
never had a policy.
"""

from fastlb import rule

FIELDS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}
HSTS = "max-age=31536000; includeSubDomains"
TELLING = ("Server", "X-Powered-By", "X-AspNet-Version", "X-AspNetMvc-Version")


@rule.response
def harden(request: rule.Request, response: rule.Response) -> None:
    headers = response.headers
    for name in TELLING:
        if name in headers:
            del headers[name]
    for name, value in FIELDS.items():
        if name not in headers:
            headers[name] = value
    if request.tls_version and "Strict-Transport-Security" not in headers:
        headers["Strict-Transport-Security"] = HSTS
