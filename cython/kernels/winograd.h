/* winograd.h - the algorithms of a convolution that conv.c hands over to winograd.c: functions of a conv step, as in table.h. */
#ifndef EI_WINOGRAD_H
#define EI_WINOGRAD_H
#include "table.h"

/* whether the step's window is one of its algorithm's */
int EI_FN(ei_winograd_fits)(const ei_step *step);
ei_run_fn EI_FN(ei_winograd);
ei_units_fn EI_FN(ei_winograd_units);
ei_scratch_fn EI_FN(ei_winograd_scratch);

#endif
