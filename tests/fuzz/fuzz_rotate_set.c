/* What stands beside a set: it is refused, or what was read is written and read again as the same,
 * and can be judged at any time. */
#include "rotate_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t times[] = {0, 1, INT64_C(1767225600), INT64_C(1) << 40, INT64_MAX};
    struct rotate_set *set = calloc(1, sizeof(*set));
    struct rotate_set *again = calloc(1, sizeof(*again));
    struct err err = ERR_INIT;
    if (rotate_set_parse((struct str){(const char *)data, size}, set, &err) == -1) {
        assert(err.code == ERR_PROTOCOL);
    } else {
        struct buf text = BUF_INIT(1 << 20);
        assert(set->n_parts <= CONF_ROTATE_FILES_MAX + 1);
        for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
            enum rotate_freshness f = rotate_set_judge(set, 90, times[i]);
            assert(f == ROTATE_FRESH || f == ROTATE_STALE || f == ROTATE_EXPIRED);
            assert(set->n_parts > 0 || f == ROTATE_FRESH);
            int64_t next_s = rotate_set_next_change_s(set, 90, times[i]);
            assert(next_s > times[i] || next_s == INT64_MAX);
        }
        /* Texts that our own escapes would cut are not ours to begin with. */
        if (rotate_set_write(set, &text) && rotate_set_parse(buf_str(&text), again, NULL) == 0) {
            assert(again->generation == set->generation && again->n_parts == set->n_parts);
            assert(again->has_leaf == set->has_leaf);
            assert(rotate_set_ends_s(again) == rotate_set_ends_s(set));
        }
        buf_reset(&text);
    }
    free(set);
    free(again);
    return 0;
}
