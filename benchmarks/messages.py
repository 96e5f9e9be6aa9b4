"""The messages that every benchmark of HTTP/1 uses: what browsers and application servers send."""

COOKIES = (
    b"_ga=GA1.1.1938475610.1718874421; session_locale=en-GB; "
    b"X-Mapping-deadbeef=AQmZk3vXl0p8wTn5bYcE7r2sJhUoQfGd; "
    b"cf_chl_2=a1b2c3d4e5f60718; PHPSESSID=3r5l0q8d7j2m9c1v6b4n8x0z2k"
)

# 701 bytes, as Chrome 126 sends it.
BROWSER_REQUEST = (
    b"GET /shop/catalogue/items?page=2&sort=price HTTP/1.1\r\n"
    b"Host: www.shop.example.com\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="126", "Not/A)Brand";v="8"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/126.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Referer: https://www.shop.example.com/shop\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: " + COOKIES + b"\r\n\r\n"
)

# 313 bytes.
RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Date: Thu, 20 Jun 2024 09:07:01 GMT\r\n"
    b"Server: Apache/2.4.59 (Debian)\r\n"
    b"Cache-Control: no-cache, private\r\n"
    b"Set-Cookie: session_locale=en-GB; Path=/; HttpOnly\r\n"
    b"Vary: Accept-Encoding\r\n"
    b"Keep-Alive: timeout=5, max=100\r\n"
    b"Connection: Keep-Alive\r\n"
    b"Content-Type: text/html; charset=UTF-8\r\n"
    b"Content-Length: 17\r\n\r\n"
)
