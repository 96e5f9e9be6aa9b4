"""Lets fastlb's session cookie work for a site that other sites embed in a frame.

Browsers that block third-party cookies still keep one that says Partitioned (CHIPS): one jar per
embedding site. It must be Secure, and SameSite=None, or it is not sent from a frame at all. The
rule changes the cookie that fastlb has inserted, whatever its class: its value, and so the session,
stays as it is.
"""

from fastlb import rule

OURS = ("X-Mapping-", "NSC_")  # transparent, cookie-insert


@rule.response
def partitioned(request: rule.Request, response: rule.Response) -> None:
    for name, cookie in response.cookies.items():
        if name.startswith(OURS):
            cookie["Secure"] = True
            cookie["SameSite"] = "None"
            cookie["Partitioned"] = True
