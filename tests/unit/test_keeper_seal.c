/* A keeper's state as a file (identity/keeper/seal.c): every changed bit is seen. */
#include "seal.h"

#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECRET "what must not be seen, or changed"
static const struct str PAYLOAD = {SECRET, sizeof(SECRET) - 1};

static struct str seal_up(const struct keeper_seal *seal)
{
    uint8_t *file = NULL;
    size_t n = 0;

    assert_int_equal(keeper_seal_close(seal, PAYLOAD, &file, &n, NULL), 0);
    return (struct str){(const char *)file, n};
}

static int open_it(const struct keeper_seal *seal, struct str file, struct err *err)
{
    uint8_t *payload = NULL;
    size_t n = 0;
    int r = keeper_seal_open(seal, file, &payload, &n, err);

    if (r == 0) {
        assert_int_equal(n, PAYLOAD.n);
        assert_memory_equal(payload, PAYLOAD.p, n);
        mem_secret_free(payload);
    }
    return r;
}

static void every_change_is_seen(const struct keeper_seal *seal)
{
    struct str file = seal_up(seal);
    uint8_t *copy = mem_must_calloc(1, file.n + 1);
    struct err err = ERR_INIT;

    assert_int_equal(open_it(seal, file, &err), 0);
    memcpy(copy, file.p, file.n);
    for (size_t i = 0; i < file.n; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            copy[i] ^= (uint8_t)bit;
            if (open_it(seal, (struct str){(char *)copy, file.n}, &err) != -1) {
                fail_msg("byte %zu, bit %#x: not seen", i, bit);
            }
            copy[i] ^= (uint8_t)bit;
        }
        assert_int_equal(open_it(seal, (struct str){(char *)copy, i}, &err), -1);
    }
    assert_int_equal(open_it(seal, (struct str){(char *)copy, file.n + 1}, &err), -1);
    free(copy);
    mem_secret_free((void *)(uintptr_t)file.p);
}

static void test_changes(void **state)
{
    struct keeper_seal plain = {.key = NULL}, sealed;

    (void)state;
    assert_int_equal(keeper_seal_derive(STR_LIT("a passphrase"), NULL, &sealed, NULL), 0);
    every_change_is_seen(&plain);
    every_change_is_seen(&sealed);
    keeper_seal_deinit(&sealed);
}

static void test_passphrases(void **state)
{
    static char longest[KEEPER_PASSPHRASE_MAX + 1];
    struct keeper_seal right, wrong;
    struct keeper_seal_head head;
    struct err err = ERR_INIT;
    struct str file;

    (void)state;
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(keeper_seal_derive(STR_NONE, NULL, &wrong, &err), -1);
    assert_int_equal(keeper_seal_derive((struct str){longest, sizeof(longest)}, NULL, &wrong, &err),
                     -1);
    assert_int_equal(keeper_seal_derive(STR_LIT("right"), NULL, &right, &err), 0);
    file = seal_up(&right);
    assert_int_equal(keeper_seal_read_head(file, &head, &err), 0);
    assert_true(head.sealed);
    /* the same passphrase and the file's salt open it; nothing else does */
    assert_int_equal(keeper_seal_derive(STR_LIT("right"), head.salt, &wrong, &err), 0);
    assert_int_equal(open_it(&wrong, file, &err), 0);
    keeper_seal_deinit(&wrong);
    assert_int_equal(keeper_seal_derive(STR_LIT("wrong"), head.salt, &wrong, &err), 0);
    assert_int_equal(open_it(&wrong, file, &err), -1);
    assert_non_null(strstr(err.what, "passphrase"));
    keeper_seal_deinit(&wrong);
    assert_int_equal(keeper_seal_derive(STR_LIT("right"), NULL, &wrong, &err), 0);
    assert_int_equal(open_it(&wrong, file, &err), -1);
    keeper_seal_deinit(&wrong);
    assert_int_equal(open_it(NULL, file, &err), -1);
    mem_secret_free((void *)(uintptr_t)file.p);
    keeper_seal_deinit(&right);
}

static void test_nothing_shows(void **state)
{
    struct keeper_seal seal;
    struct str a, b;

    (void)state;
    assert_int_equal(keeper_seal_derive(STR_LIT("right"), NULL, &seal, NULL), 0);
    a = seal_up(&seal);
    b = seal_up(&seal);
    assert_null(memmem(a.p, a.n, PAYLOAD.p, 8));
    assert_int_equal(a.n, b.n);
    /* another nonce, so that nothing but the lengths is the same */
    assert_int_not_equal(memcmp(a.p + 60, b.p + 60, 16), 0);
    mem_secret_free((void *)(uintptr_t)a.p);
    mem_secret_free((void *)(uintptr_t)b.p);
    keeper_seal_deinit(&seal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_passphrases),
        cmocka_unit_test(test_nothing_shows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
