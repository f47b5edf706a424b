/*
 * What the module says. PKCS#11 modules talk to syslog(3), whose socket this process neither has
 * nor may open; these take its place for the module, and make log lines like all others.
 */
#include <postern/log.h>

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* <syslog.h> has names of <postern/log.h>. The last two: what programs built with _FORTIFY_SOURCE
 * call. */
void openlog(const char *ident, int option, int facility);
void closelog(void);
void syslog(int priority, const char *fmt, ...);
void vsyslog(int priority, const char *fmt, va_list args);
void __syslog_chk(int priority, int flag, const char *fmt, ...);
void __vsyslog_chk(int priority, int flag, const char *fmt, va_list args);

#define FOR_THE_MODULE __attribute__((visibility("default")))

FOR_THE_MODULE void openlog(const char *ident, int option, int facility)
{
    (void)ident;
    (void)option;
    (void)facility;
}

FOR_THE_MODULE void closelog(void)
{
}

FOR_THE_MODULE __attribute__((format(printf, 2, 0))) void vsyslog(int priority, const char *fmt,
                                                                  va_list args)
{
    struct log *log = log_new_fd(STDERR_FILENO, LOG_INFO, "signer"); /* no state outside main */
    char text[512];

    (void)vsnprintf(text, sizeof(text), fmt, args);
    log_msg(log, (priority & 7) <= 4 ? LOG_WARN : LOG_INFO, "token_says", "%s", text);
    log_free(log);
}

FOR_THE_MODULE void syslog(int priority, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsyslog(priority, fmt, args);
    va_end(args);
}

FOR_THE_MODULE void __syslog_chk(int priority, int flag, const char *fmt, ...)
{
    va_list args;

    (void)flag;
    va_start(args, fmt);
    vsyslog(priority, fmt, args);
    va_end(args);
}

FOR_THE_MODULE void __vsyslog_chk(int priority, int flag, const char *fmt, va_list args)
{
    (void)flag;
    vsyslog(priority, fmt, args);
}
