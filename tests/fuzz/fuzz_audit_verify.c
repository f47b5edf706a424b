/*
 * An audit log that is verified: any bytes, as lines of two files. Properties: what fits is counted
 * once; what fits fits again; with a line left out of what is chained it fits no more.
 */
#include <postern/audit_verify.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* How many lines fit, from the first; `skip` is left out. */
static size_t feed(struct audit_verify *v, const uint8_t *data, size_t size, size_t skip)
{
    size_t n = 0, at = 0, i = 0;
    while (at < size) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t len = end != NULL ? (size_t)(end - data) - at : size - at;
        if (i++ != skip) {
            if (audit_verify_line(v, (struct str){(const char *)data + at, len}, end != NULL) !=
                NULL) {
                return n;
            }
            n++;
        }
        at += len + 1;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct audit_verify v = AUDIT_VERIFY_INIT, again = AUDIT_VERIFY_INIT;
    size_t half = size / 2;
    size_t n = feed(&v, data, size, SIZE_MAX);
    require(v.lines + v.torn + (v.torn_waiting ? 1 : 0) == n);
    require(feed(&again, data, size, SIZE_MAX) == n);
    require(again.seq == v.seq && memcmp(again.head, v.head, sizeof(v.head)) == 0);
    audit_verify_deinit(&again);
    if (v.chained && v.torn == 0 && !v.torn_waiting && !v.fork && v.begins == 1 && n > 2) {
        again = (struct audit_verify)AUDIT_VERIFY_INIT;
        require(feed(&again, data, size, n / 2) < n - 1);
        audit_verify_deinit(&again);
    }
    again = (struct audit_verify)AUDIT_VERIFY_INIT;
    (void)feed(&again, data, half, SIZE_MAX);
    audit_verify_file(&again);
    (void)feed(&again, data + half, size - half, SIZE_MAX);
    (void)audit_verify_end(&again);
    audit_verify_deinit(&again);
    audit_verify_deinit(&v);
    return 0;
}
