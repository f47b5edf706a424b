/*
 * http_connect: in pieces is whole; what follows an answer is not looked at; an open tunnel has a
 * 2xx head that ends in an empty line, with no control characters in it.
 */
#include <postern/http_connect.h>

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned status = 0, again = 0;
    size_t used = 0, used_again = 0;
    enum http_connect_result whole = http_connect_answer(data, size, &status, &used);
    enum http_connect_result part = HTTP_CONNECT_MORE;
    size_t n = 0;
    for (; part == HTTP_CONNECT_MORE && n <= size; n++) {
        part = http_connect_answer(data, n, &again, &used_again);
    }
    MUST(part == whole);
    MUST(whole != HTTP_CONNECT_MORE || size < HTTP_CONNECT_ANSWER_MAX);
    if (whole == HTTP_CONNECT_OPEN || whole == HTTP_CONNECT_REFUSED) {
        MUST(status == again && used == used_again && used <= size && used == n - 1);
        MUST((status / 100 == 2) == (whole == HTTP_CONNECT_OPEN));
        MUST(used >= 4 && memcmp(data + used - 4, "\r\n\r\n", 4) == 0);
        for (size_t i = 0; i < used; i++) {
            MUST(data[i] >= ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n');
        }
    }
    return 0;
}
