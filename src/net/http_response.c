/*
 * Answers of the HTTP server as bytes, head and body in one piece so that one write takes them.
 */
#include "http_response.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define FIXED_ROOM 256 /* status line and the headers written here, without their values */

static const struct {
    int status;
    const char *text;
} statuses[] = {
    { 200, "OK" },
    { 100, "Continue" },
    { 101, "Switching Protocols" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 301, "Moved Permanently" },
    { 302, "Found" },
    { 304, "Not Modified" },
    { 307, "Temporary Redirect" },
    { 308, "Permanent Redirect" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 411, "Length Required" },
    { 413, "Content Too Large" },
    { 414, "URI Too Long" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 421, "Misdirected Request" },
    { 422, "Unprocessable Content" },
    { 426, "Upgrade Required" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 502, "Bad Gateway" },
    { 503, "Service Unavailable" },
    { 504, "Gateway Timeout" },
    { 505, "HTTP Version Not Supported" },
    { 507, "Insufficient Storage" },
};

const char *http_status_text(int status)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        if (statuses[i].status == status)
            return statuses[i].text;
    return "Unknown";
}

static size_t text_len(const char *s)
{
    return s == NULL ? 0 : strlen(s);
}

size_t http_response_room(const struct http_response *r)
{
    return FIXED_ROOM + text_len(r->content_type) + text_len(r->headers) + r->body.len;
}

static uint8_t *put(uint8_t *to, const char *text)
{
    size_t len = strlen(text);

    memcpy(to, text, len);
    return to + len;
}

static uint8_t *put_number(uint8_t *to, size_t n)
{
    char digits[24], *at = digits + sizeof(digits);

    *--at = '\0';
    do
        *--at = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    return put(to, at);
}

/* (RFC 9110, 6.4.1) */
static bool has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* Not by strftime, whose names follow the locale. */
void http_date_format(int64_t unix_s, char to[HTTP_DATE_SIZE])
{
    static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
    static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    const time_t seconds = (time_t)unix_s;
    struct tm tm = { 0 };
    char text[96]; /* whatever the compiler believes of the numbers */

    gmtime_r(&seconds, &tm);
    snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
             months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    memcpy(to, text, HTTP_DATE_SIZE - 1);
    to[HTTP_DATE_SIZE - 1] = '\0';
}

size_t http_response_write(const struct http_response *r, enum http_response_connection connection,
                           const char *date, bool no_body, uint8_t *to)
{
    static const char *const connection_lines[] = {
        [HTTP_CONNECTION_UNSAID] = "",
        [HTTP_CONNECTION_CLOSE] = "Connection: close\r\n",
        [HTTP_CONNECTION_KEEP_ALIVE] = "Connection: keep-alive\r\n",
    };
    uint8_t *at = put(to, "HTTP/1.1 ");

    at = put_number(at, (size_t)r->status);
    at = put(at, " ");
    at = put(at, http_status_text(r->status));
    at = put(at, "\r\n");
    if (date != NULL) {
        at = put(at, "Date: ");
        at = put(at, date);
        at = put(at, "\r\n");
    }
    at = put(at, connection_lines[connection]);
    if (r->content_type != NULL) {
        at = put(at, "Content-Type: ");
        at = put(at, r->content_type);
        at = put(at, "\r\n");
    }
    if (r->headers != NULL)
        at = put(at, r->headers);
    if (has_body(r->status)) {
        at = put(at, "Content-Length: ");
        at = put_number(at, r->body.len);
        at = put(at, "\r\n");
    }
    at = put(at, "\r\n");
    if (has_body(r->status) && !no_body && r->body.len > 0) {
        memcpy(at, r->body.ptr, r->body.len);
        at += r->body.len;
    }
    return (size_t)(at - to);
}
