/*
 * conf_bounds: how large what is parsed as a configuration may be. What an agent tells proxies is
 * parsed by the same parsers and has bounds of its own, derived from these: state_bounds.h.
 */
#ifndef POSTERN_CONF_BOUNDS_H
#define POSTERN_CONF_BOUNDS_H

enum {
    CONF_FILE_MAX = 4 << 20, /* bytes of a file, if nothing else is said of its kind */
    /* A policy may serve a mesh, with 100,000 rules. */
    CONF_POLICY_FILE_MAX = 64 << 20,
    /* A mesh map as text: a file has CONF_FILE_MAX, and is longer when it is told as JSON. */
    CONF_MESH_TEXT_MAX = 16 << 20,
    CONF_PART_MAX = 16 << 20, /* of conf_split: one element, or all that is outside of the list */
};

#endif
