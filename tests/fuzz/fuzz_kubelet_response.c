/* HTTP answers of a kubelet: byte by byte is whole, and what is taken stays within its bound. */
#include <postern/kubelet.h>

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

enum { MAX = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kubelet_response whole, pieces;
    struct err err = ERR_INIT, err2 = ERR_INIT;
    enum kubelet_feed fed, again = KUBELET_FEED_MORE;

    kubelet_response_init(&whole, MAX);
    kubelet_response_init(&pieces, MAX);
    fed = kubelet_response_feed(&whole, data, size, &err);
    for (size_t i = 0; i < size && again != KUBELET_FEED_BAD; i++) {
        again = kubelet_response_feed(&pieces, data + i, 1, &err2);
    }
    MUST(fed == again);
    MUST((fed == KUBELET_FEED_BAD) == (err.code != ERR_NONE));
    MUST(strcmp(err.what, err2.what) == 0);
    MUST(whole.status == pieces.status && str_eq(buf_str(&whole.body), buf_str(&pieces.body)));
    MUST(buf_len(&whole.body) <= MAX);
    MUST(fed != KUBELET_FEED_DONE || (whole.status >= 200 && whole.left == 0));
    kubelet_response_deinit(&whole);
    kubelet_response_deinit(&pieces);
    return 0;
}
