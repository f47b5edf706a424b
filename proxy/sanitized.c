/*
 * Only in builds with the address sanitizer: its leak check at exit traces its own process, which
 * the sandbox of every role forbids, and then waits for ever. Leaks are looked for by the unit
 * tests, which run the same rooms unconfined.
 */
/* The sanitizer looks for it by this name. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
