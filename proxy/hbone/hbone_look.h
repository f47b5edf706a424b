/* What tests ask of a session (hbone.h), and nobody else. */
#ifndef POSTERN_HBONE_LOOK_H
#define POSTERN_HBONE_LOOK_H

#include <postern/hbone.h>

size_t hbone_session_streams(const struct hbone_session *s);
/* Bytes that its streams keep for either side. */
size_t hbone_session_held(const struct hbone_session *s);

#endif
