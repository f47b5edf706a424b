/*
 * state_bounds: how large what proxies are told may be, in one table. Each bound follows from those
 * above it, so that what one process has taken no later one refuses for its size: the loader says
 * which bound a file does not keep, and nobody after it has to (docs/state-stream.md).
 *
 *   file -> loader -> supervisor -> service: a document, as parts     AGENT_DOC_*_MAX
 *   service -> proxy: the document as text, in a message of all       AGENT_DOC_WRITTEN_MAX,
 *                                                                      STATE_MESSAGE_MAX
 *   proxy: parsed as a file                                           CONF_*_MAX
 */
#ifndef POSTERN_STATE_BOUNDS_H
#define POSTERN_STATE_BOUNDS_H

#include <postern/agent_msg.h>
#include <postern/conf_bounds.h>

/* One document. */
enum {
    AGENT_DOC_BYTES_MAX = 40 << 20,   /* of a policy's rules as JSON */
    AGENT_DOC_MESH_MAX = 8 << 20,     /* of a mesh map's services; its file has half of that */
    AGENT_DOC_HEAD_MAX = 1 << 20,     /* what is outside of its list: roles */
    AGENT_DOC_TARGETS_MAX = 16 << 20, /* bytes of target principals, which are not told */
    /* The line on which an element may begin: it is told on its line. */
    AGENT_DOC_LINES_MAX = 32 * AGENT_DOC_ITEMS_MAX,
    AGENT_DOC_SOURCE_MAX = 4096, /* its file's name */
};

/* The same as text: what is around the list, a ", " between elements, line ends. */
enum { AGENT_DOC_FRAME_MAX = 32 };
#define AGENT_DOC_WRITTEN(bytes)                                                                   \
    ((bytes) + AGENT_DOC_HEAD_MAX + 2 * AGENT_DOC_ITEMS_MAX + AGENT_DOC_LINES_MAX +                \
     AGENT_DOC_FRAME_MAX)
enum {
    AGENT_DOC_WRITTEN_MAX = AGENT_DOC_WRITTEN(AGENT_DOC_BYTES_MAX),
    AGENT_DOC_MESH_WRITTEN_MAX = AGENT_DOC_WRITTEN(AGENT_DOC_MESH_MAX),
    AGENT_DOC_MODES_WRITTEN_MAX = AGENT_DOC_HEAD_MAX + AGENT_DOC_FRAME_MAX,
};

/* All of it in a message: three documents with their names, who is quarantined, which ports have
 * turned strict; and what protobuf puts around each. */
enum {
    STATE_STRICT_MAX = 256,  /* ports of one proxy */
    STATE_LISTENER_MAX = 63, /* bytes of its listener's name */
    STATE_FIELD_MAX = 64,    /* numbers, tags and lengths of one item */
    STATE_MESSAGE_MAX = AGENT_DOC_WRITTEN_MAX + AGENT_DOC_MESH_WRITTEN_MAX +
                        AGENT_DOC_MODES_WRITTEN_MAX + 3 * (AGENT_DOC_SOURCE_MAX + STATE_FIELD_MAX) +
                        AGENT_DENY_MAX * (AGENT_ID_MAX + STATE_FIELD_MAX) +
                        STATE_STRICT_MAX * (STATE_LISTENER_MAX + STATE_FIELD_MAX) + STATE_FIELD_MAX,
    /* And what its connection holds besides: as much as one caller of the agent may take of it, if
     * nothing is said (limits.memory_per_uid), lets one through. */
    STATE_MEMORY_MIN = STATE_MESSAGE_MAX + (4 << 20),
};

_Static_assert((int)AGENT_DOC_WRITTEN_MAX <= (int)CONF_POLICY_FILE_MAX,
               "a policy that is told is parsed");
_Static_assert((int)AGENT_DOC_MESH_WRITTEN_MAX <= (int)CONF_MESH_TEXT_MAX, "and so is a mesh map");
_Static_assert((int)AGENT_DOC_MODES_WRITTEN_MAX <= (int)CONF_FILE_MAX, "and so are modes");
_Static_assert((int)CONF_FILE_MAX <= (int)AGENT_DOC_LINES_MAX,
               "every line of a mesh map is near enough");
_Static_assert(STATE_MESSAGE_MAX <= 80 << 20, "what a proxy may have to hold for a moment");

#endif
