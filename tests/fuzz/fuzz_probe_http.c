/* The head of an HTTP answer. Property: the verdict is the same whole and byte by byte. */
#include <stdlib.h>

#include "probe_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned whole_status = 0, status = 0;
    size_t len = size < HTTP_HEAD_MAX ? size : HTTP_HEAD_MAX;
    enum http_head whole = http_head_parse((const char *)data, len, &whole_status);
    enum http_head got = HTTP_HEAD_MORE;
    size_t step = len > 2048 ? 64 : 1;

    for (size_t n = 0; n < len && got == HTTP_HEAD_MORE; n += step) {
        got = http_head_parse((const char *)data, n, &status);
    }
    if (got == HTTP_HEAD_MORE) {
        got = http_head_parse((const char *)data, len, &status);
    }
    if (got != whole || status != whole_status ||
        (got == HTTP_HEAD_OK && (status < 101 || status > 599))) {
        abort();
    }
    return 0;
}
