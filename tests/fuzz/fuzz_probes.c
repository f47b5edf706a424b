/* What comes over a probe's two connections: the same verdict however it is cut, and never a target
 * or status that a line could not hold. */
#include <postern/probes.h>

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size < PROBES_HEAD_MAX ? size : PROBES_HEAD_MAX};
    struct str target = STR_NONE;
    unsigned status = 0;
    enum probes_parsed head = PROBES_MORE, answer = PROBES_MORE;
    for (size_t n = 0; n <= text.n && (head == PROBES_MORE || answer == PROBES_MORE); n++) {
        struct str part = {text.p, n};
        if (head == PROBES_MORE) {
            head = probes_read_head(part, &target);
        }
        if (answer == PROBES_MORE) {
            answer = probes_read_status(part, &status);
        }
    }
    struct str whole_target = STR_NONE;
    unsigned whole_status = 0;
    assert(probes_read_head(text, &whole_target) == head && str_eq(target, whole_target));
    assert(probes_read_status(text, &whole_status) == answer && status == whole_status);
    for (size_t i = 0; i < target.n; i++) {
        assert((unsigned char)target.p[i] > ' ' && (unsigned char)target.p[i] < 0x7f);
    }
    assert(answer != PROBES_DONE || (status >= 200 && status <= 599));
    (void)probes_read_health(text);
    return 0;
}
