/*
 * Answers of our own: a status, why, and by which decision, in headers for programs and one line of
 * text for people. Nothing in them comes from the peer.
 */
#include <postern/http1.h>

#include "http1_priv.h"

#include <stdio.h>

enum { ANSWER_TEXT_MAX = 512 };

const char *http1_status_text(unsigned status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 421:
        return "Misdirected Request";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Error";
    }
}

static bool is_line(const char *text)
{
    for (; *text != '\0'; text++) {
        uint8_t c = (uint8_t)*text;
        if (c < 0x20 || c == 0x7f) {
            return false;
        }
    }
    return true;
}

bool http1_answer_emit(const struct http1_answer *answer, struct buf *out)
{
    char body[ANSWER_TEXT_MAX];
    char decision[HTTP1_MAX_HOST] = "";
    char decision_line[HTTP1_MAX_HOST + 32] = "";
    char retry_line[32] = "";
    const char *status = http1_status_text(answer->status);
    const char *text = answer->text != NULL ? answer->text : "";
    if (answer->status < 400 || answer->status > 599 || !http1_is_token(str_of(answer->reason)) ||
        !is_line(text)) {
        return false;
    }
    if (answer->decision_id.n > 0) {
        if (answer->decision_id.n > 128 || !http1_is_token(answer->decision_id)) {
            return false;
        }
        (void)snprintf(decision, sizeof(decision), ", decision %.*s", STR_ARG(answer->decision_id));
        (void)snprintf(decision_line, sizeof(decision_line), "x-postern-decision: %.*s\r\n",
                       STR_ARG(answer->decision_id));
    }
    if (answer->retry_after_s > 0) {
        (void)snprintf(retry_line, sizeof(retry_line), "retry-after: %u\r\n",
                       answer->retry_after_s);
    }
    int n = snprintf(body, sizeof(body), "%u %s%s%.200s (reason %.64s%s)\n", answer->status, status,
                     text[0] != '\0' ? ": " : "", text, answer->reason, decision);
    return n > 0 && (size_t)n < sizeof(body) &&
           buf_printf(out,
                      "HTTP/1.1 %u %s\r\n"
                      "content-type: text/plain\r\n"
                      "content-length: %d\r\n"
                      "x-postern-reason: %s\r\n"
                      "%s%s%s%s\r\n%s",
                      answer->status, status, n, answer->reason, decision_line, retry_line,
                      answer->status == 401 ? "www-authenticate: Bearer\r\n" : "",
                      answer->close ? "Connection: close\r\n" : "", answer->head ? "" : body);
}
