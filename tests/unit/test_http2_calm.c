/* What brings nothing, and when it is paid for all the same (http2_calm.h). */
#include <postern/http2_calm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Who reads many streams gives all of their windows back in one go, and may measure the way too. */
static void test_many_readers(void **state)
{
    (void)state;
    static const uint8_t types[] = {8, 6}; /* WINDOW_UPDATE, PING */
    for (size_t i = 0; i < sizeof(types); i++) {
        const struct http2_calm_frame f = {.type = types[i], .length = 8};
        struct http2_calm c;
        http2_calm_init(&c, 100, 1000);
        for (unsigned n = 0; n < 3 * HTTP2_CALM_BURST; n++) {
            http2_calm_sent(&c, 16 * HTTP2_CALM_WORTH);
            for (unsigned k = 0; k < 16; k++) {
                assert_int_equal(http2_calm_frame(&c, &f, 1000), HTTP2_CALM);
            }
        }
        assert_int_equal(c.milli, (uint64_t)HTTP2_CALM_BURST * 1000);
        http2_calm_sent(&c, SIZE_MAX); /* nothing is saved up without end */
        unsigned n = 0;
        while (http2_calm_frame(&c, &f, 1000) == HTTP2_CALM) {
            n++;
        }
        assert_int_equal(n, HTTP2_CALM_SENT_MAX / HTTP2_CALM_WORTH + HTTP2_CALM_BURST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
