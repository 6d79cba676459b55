/* train/session_answering.h -- a session's use of train/answering.h. */
#ifndef LRD_TRAIN_SESSION_ANSWERING_H
#define LRD_TRAIN_SESSION_ANSWERING_H

#include "train/session.h"

/* Exact match and F1 in evaluations: of the whole eval_file, or of what validation_split took; nothing where
 * they are not asked for. Not collective. */
lrd_status_t lrd_session_open_answering(lrd_session_t *session);

/* The session's rank as the one that answers, once its layers are known; o.answering->leave ends it. */
lrd_status_t lrd_session_take_place(lrd_session_t *session);

#endif /* LRD_TRAIN_SESSION_ANSWERING_H */
