/* What the files of the sandbox share. */
#ifndef POSTERN_SANDBOX_PRIV_H
#define POSTERN_SANDBOX_PRIV_H

#include <linux/securebits.h>
#include <postern/sandbox.h>

/* The ambient set is cleared beside it; "no ambient raise" keeps it so. */
#define SANDBOX_SECURE_BITS                                                                        \
    (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |                               \
     SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |       \
     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

uint64_t sandbox_permitted_caps(void);
/* The version of Landlock that this kernel has; 0: none. */
int sandbox_landlock_abi(void);
/* Before the filter is loaded: SIGSYS is ours from here on. */
int sandbox_refused_catch(struct err *err);

#endif
