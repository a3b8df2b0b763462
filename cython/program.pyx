# cython: language_level=3, boundscheck=False, wraparound=False
"""A program: native steps in order, their tensors bound to slots of memory, run without the interpreter.

The kinds of steps, their tensor roles and fields are those of ``cython/kernels/steps.h``; a step is built by keyword and a name that is not
there is an error. Nothing here owns tensors: whoever sets slots and scratch keeps that memory alive.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from ..errors import KernelError

cdef extern from *:
    """
    #include "pool.h"

    #define EI_NAME(n) #n,
    #define EI_NAMES(N, n) {#n, (const char *const[]){EI_##N##_TENSORS(EI_NAME) 0}, (const char *const[]){EI_##N##_INTS(EI_NAME) 0}, \
                            (const char *const[]){EI_##N##_FLOATS(EI_NAME) 0}},
    typedef struct { const char *kind; const char *const *tensors, *const *ints, *const *floats; } ei_names;
    static const ei_names ei_step_names[] = {EI_STEP_KINDS(EI_NAMES)};
    static const char *const ei_activation_names[] = {EI_ACTIVATIONS(EI_NAME) 0};
    static const char *const ei_algorithm_names[] = {EI_ALGORITHMS(EI_NAME) 0};
    static const char *const ei_operation_names[] = {EI_OPERATIONS(EI_NAME) 0};
    #define EI_FITS(N, n)                                                                               \
      _Static_assert(sizeof(ei_##n##_tensors) <= EI_MAX_TENSORS * sizeof(void *), #n ": tensors");      \
      _Static_assert(sizeof(ei_##n##_ints) <= EI_MAX_INTS * sizeof(int64_t), #n ": ints");              \
      _Static_assert(sizeof(ei_##n##_floats) <= EI_MAX_FLOATS * sizeof(float), #n ": floats");
    EI_STEP_KINDS(EI_FITS)

    static const char *ei_text(const void *names, int at) { return ((const char *const *)names)[at]; }
    static size_t ei_scratch_of(const ei_kernels *k, const ei_step *s) { return k->scratch[s->kind] ? k->scratch[s->kind](s) : 0; }
    static int64_t ei_units_of(const ei_kernels *k, const ei_step *s) { return k->units[s->kind](s); }
    #include <time.h>
    static int64_t ei_now(void) {
      struct timespec t;
      clock_gettime(CLOCK_MONOTONIC, &t);
      return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static const _Atomic int32_t *ei_stop_word(int32_t *word) { return (const _Atomic int32_t *)word; }
    """
    int EI_STEP_COUNT, EI_MAX_TENSORS, EI_MOST_THREADS  # int, not enum: Cython before 3.0.8 writes the conversion of an anonymous enum twice
    ctypedef struct ei_names:
        const char *kind
        const void *tensors
        const void *ints
        const void *floats
    ctypedef struct ei_weights:
        pass
    ctypedef struct ei_kernels:
        const char *name
    ctypedef struct ei_step:
        int32_t kind
        void *t[12]
        int64_t i[48]
        float f[8]
        const ei_weights *w
    ctypedef struct ei_stop_type "const _Atomic int32_t":
        pass
    ctypedef struct ei_job_list:
        const ei_kernels *kernels
        const ei_step *steps
        char *scratch
        size_t scratch_stride
        ei_stop_type *stop
        int64_t *nanoseconds
    const ei_names *ei_step_names
    const void *ei_activation_names
    const void *ei_operation_names
    const void *ei_algorithm_names
    const ei_kernels *ei_find_kernels(const char *name)
    const void *ei_available_kernels()
    const char *ei_text(const void *names, int at)
    size_t ei_scratch_of(const ei_kernels *k, const ei_step *s)
    int64_t ei_units_of(const ei_kernels *k, const ei_step *s)
    ei_stop_type *ei_stop_word(int32_t *word)
    int64_t ei_now() nogil
    int64_t ei_run_steps(const ei_job_list *job, int64_t first, int64_t last, int threads, int *status) nogil


cdef enum:
    SIGNALS_NS = 50000000


cdef tuple texts(const void *names):
    found = []
    while ei_text(names, len(found)) != NULL:
        found.append(ei_text(names, len(found)).decode())
    return tuple(found)


cdef dict all_steps():
    return {
        ei_step_names[k].kind.decode(): (texts(ei_step_names[k].tensors), texts(ei_step_names[k].ints), texts(ei_step_names[k].floats))
        for k in range(EI_STEP_COUNT)
    }


#: threads that one step may use
MOST_THREADS = EI_MOST_THREADS
#: kind of step -> (tensor roles, names of integers, names of floats), each in stored order
STEP_FIELDS = all_steps()
#: name of an activation -> its code
ACTIVATIONS = {name.lower(): code for code, name in enumerate(texts(ei_activation_names))}
#: name of an arithmetic operation -> its code
OPERATIONS = {name.lower(): code for code, name in enumerate(texts(ei_operation_names))}
#: name of an algorithm of convolutions -> its code
ALGORITHMS = {name.lower(): code for code, name in enumerate(texts(ei_algorithm_names))}

#: roles that a step may go without
OPTIONAL = {
    "conv": {"bias", "residual"}, "depthwise": {"bias", "residual"}, "layer_norm": {"scale", "shift"},
    "gru": {"bias", "h0", "y", "y_h"}, "lstm": {"h0", "c0", "y", "y_h", "y_c"},
}
#: kinds that multiply with coded weights
WEIGHTED = frozenset({"conv", "depthwise", "gather_rows", "gru", "lstm"})

STATUS = {
    -1: "the coded weights are damaged",
    -2: "stopped",
    -3: "the step contradicts its weights or has an unknown operation",
    -4: "an index is out of range",
    -5: "scratch is missing",
}

cdef list KINDS = list(STEP_FIELDS)


def available_kernels():
    """Names of the kernel variants that this build has and this CPU can run, best first."""
    return list(texts(ei_available_kernels()))


def fields(str kind, dict tensors, dict ints, dict floats, weights):
    """Raise ValueError where a step of this kind has no such tensor, integer, float or weights, or lacks weights."""
    if kind not in STEP_FIELDS:
        raise ValueError(f"unknown kind of step {kind!r}")
    roles, int_names, float_names = STEP_FIELDS[kind]
    for what, given, known in (("tensor", tensors, roles), ("integer", ints, int_names), ("float", floats, float_names)):
        for name in given:
            if name not in known:
                raise ValueError(f"{kind} has no {what} {name!r}; it has: {', '.join(known) or 'none'}")
    if (weights is not None) != (kind in WEIGHTED):
        raise ValueError(f"{kind} {'needs' if weights is None else 'takes no'} coded weights")


cdef int fill(ei_step *step, str kind, dict ints, dict floats, weights) except -1:
    """What a step is apart from its tensors; ``weights`` must outlive it."""
    cdef int n
    memset(step, 0, sizeof(ei_step))
    step.kind = KINDS.index(kind)
    for n, name in enumerate(STEP_FIELDS[kind][1]):
        step.i[n] = ints.get(name, 0)
    for n, name in enumerate(STEP_FIELDS[kind][2]):
        step.f[n] = floats.get(name, 0.0)
    if weights is not None:
        step.w = <const ei_weights *><uintptr_t>weights.address
    return 0


cdef class Program:
    """Steps bound to memory.

    ``kernels``: a name of :func:`available_kernels`, or ``None`` for the best one. Raises :class:`KernelError` where it is not available.
    """

    cdef const ei_kernels *table
    cdef ei_step *steps
    cdef int32_t *slots          # EI_MAX_TENSORS slot numbers per step, -1: none
    cdef int64_t *offsets
    cdef int64_t count, room
    cdef list keep
    cdef dict places             # slot -> (address, bytes)
    cdef dict uses               # slot -> places in `slots` that refer to it
    cdef bint bound
    cdef size_t needed, stride
    cdef uintptr_t scratch
    cdef int32_t stop
    cdef int64_t *times
    cdef public bint profile

    def __cinit__(self, kernels=None):
        name = kernels if kernels is not None else available_kernels()[0]
        self.table = ei_find_kernels(name.encode())
        if self.table == NULL:
            raise KernelError(f"kernels {name!r} are not available here; available: {', '.join(available_kernels())}")
        self.keep = []
        self.places = {}
        self.uses = {}

    def __dealloc__(self):
        free(self.steps)
        free(self.slots)
        free(self.offsets)
        free(self.times)

    def __len__(self):
        return self.count

    @property
    def kernels(self):
        """Name of the variant in use."""
        return self.table.name.decode()

    cdef int grow(self) except -1:
        cdef int64_t room = max(16, 2 * self.room)
        cdef void *p
        p = realloc(self.steps, room * sizeof(ei_step))
        if p == NULL:
            raise MemoryError
        self.steps = <ei_step *>p
        p = realloc(self.slots, room * EI_MAX_TENSORS * sizeof(int32_t))
        if p == NULL:
            raise MemoryError
        self.slots = <int32_t *>p
        p = realloc(self.offsets, room * EI_MAX_TENSORS * sizeof(int64_t))
        if p == NULL:
            raise MemoryError
        self.offsets = <int64_t *>p
        p = realloc(self.times, room * sizeof(int64_t))
        if p == NULL:
            raise MemoryError
        self.times = <int64_t *>p
        self.room = room
        return 0

    def append(self, str kind, dict tensors, dict ints, dict floats, weights=None):
        """Add a step. ``tensors``: role -> (slot, byte offset); ``weights``: a CodedTensor, kept alive by the program.

        Integers and floats that are not given are 0. Raises ValueError naming what is unknown or missing.
        """
        fields(kind, tensors, ints, floats, weights)
        roles = STEP_FIELDS[kind][0]
        for role in roles:
            if role not in tensors and role not in OPTIONAL.get(kind, ()):
                raise ValueError(f"{kind} needs a tensor {role!r}")
        if self.count == self.room:
            self.grow()
        cdef ei_step *step = self.steps + self.count
        cdef int32_t *slots = self.slots + self.count * EI_MAX_TENSORS
        cdef int64_t *offsets = self.offsets + self.count * EI_MAX_TENSORS
        cdef int n
        fill(step, kind, ints, floats, weights)
        for n in range(EI_MAX_TENSORS):
            slots[n] = -1
            offsets[n] = 0
        for n, role in enumerate(roles):
            if role in tensors:
                slot, offset = tensors[role]
                if slot < 0 or offset < 0:
                    raise ValueError(f"{kind}: tensor {role!r} has a negative slot or offset")
                slots[n] = slot
                offsets[n] = offset
                self.uses.setdefault(slot, []).append(self.count * EI_MAX_TENSORS + n)
        if weights is not None:
            self.keep.append(weights)
        self.times[self.count] = 0
        cdef size_t scratch = ei_scratch_of(self.table, step)
        if scratch > self.needed:
            self.needed = scratch
        self.count += 1
        self.bound = False

    @property
    def scratch_bytes(self):
        """Bytes of scratch that every thread needs, a multiple of 64."""
        return (self.needed + 63) // 64 * 64 if self.needed else 64

    def scratch_of(self, str kind, dict ints, weights=None):
        """Bytes of scratch that one thread would need for such a step. Raises ValueError naming what is unknown."""
        cdef ei_step step
        fields(kind, {}, ints, {}, weights)
        fill(&step, kind, ints, {}, weights)
        return ei_scratch_of(self.table, &step)

    def units(self, int64_t index):
        """Pieces of work that a step splits into."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return ei_units_of(self.table, self.steps + index)

    def set_slot(self, int slot, uintptr_t address, int64_t nbytes):
        """Say where the bytes of a slot are. The memory stays the caller's."""
        if self.places.get(slot) == (address, nbytes):
            return
        self.places[slot] = (address, nbytes)
        if self.bound:  # all others stay where they are
            self.bind_slot(slot)

    def set_scratch(self, uintptr_t address, size_t nbytes_per_thread):
        """Scratch of thread t begins at address + t * nbytes_per_thread; both multiples of 64."""
        if address % 64 or nbytes_per_thread % 64:
            raise ValueError("scratch has to be aligned to 64 bytes")
        self.scratch = address
        self.stride = nbytes_per_thread

    cdef int bind(self) except -1:
        for slot in self.uses:
            self.bind_slot(slot)
        self.bound = True
        return 0

    cdef int bind_slot(self, slot) except -1:
        cdef int64_t use, at, offset, nbytes
        cdef uintptr_t address
        uses = self.uses.get(slot, ())
        if not uses:
            return 0
        if slot not in self.places:
            at = uses[0] // EI_MAX_TENSORS
            raise KernelError(f"step {at} ({KINDS[self.steps[at].kind]}): slot {slot} has no memory")
        address, nbytes = self.places[slot]
        for use in uses:
            at, offset = use // EI_MAX_TENSORS, self.offsets[use]
            if offset > nbytes:
                self.bound = False
                raise KernelError(f"step {at} ({KINDS[self.steps[at].kind]}): offset {offset} lies outside slot {slot} of {nbytes} bytes")
            self.steps[at].t[use % EI_MAX_TENSORS] = <void *>(address + <uintptr_t>offset)
        return 0

    def run(self, int64_t first, int64_t last, int threads=1):
        """Run steps first .. last - 1. Returns the first step not run: ``last``, or an earlier one if the stop word was set.

        The GIL is free meanwhile, but for a moment every 50 ms in which signals get their turn: what a handler raises (Ctrl-C) ends the run
        between two steps. Raises :class:`KernelError` naming the step that failed.
        """
        cdef ei_job_list job
        cdef int64_t reached = first, at, since
        cdef int status = 0
        if not 0 <= first <= last <= self.count:
            raise IndexError(f"steps {first}..{last} of {self.count}")
        if not self.bound:
            self.bind()
        if threads < 1:
            threads = 1
        if self.stride < self.needed or self.scratch == 0:
            raise KernelError(f"scratch of {self.stride} bytes per thread, {self.scratch_bytes} needed")
        job.kernels = self.table
        job.steps = self.steps
        job.scratch = <char *>self.scratch
        job.scratch_stride = self.stride
        job.stop = ei_stop_word(&self.stop)
        job.nanoseconds = self.times if self.profile else NULL
        with nogil:
            since = ei_now()
            for at in range(first, last):
                reached = ei_run_steps(&job, at, at + 1, threads, &status)
                if reached == at:  # stopped or failed
                    break
                if ei_now() - since > SIGNALS_NS:
                    since = ei_now()
                    with gil:
                        PyErr_CheckSignals()
        if status:
            raise KernelError(f"step {reached} ({KINDS[self.steps[reached].kind]}): {STATUS.get(status, status)}")
        return reached

    @property
    def stop_address(self):
        """Address of an int32 that is read before every step; while it is not zero no step begins."""
        return <uintptr_t>&self.stop

    @property
    def stopped(self):
        """The stop word as a truth value; may be set from any thread while the program runs."""
        return self.stop != 0

    @stopped.setter
    def stopped(self, bint value):
        self.stop = value

    @property
    def nanoseconds(self):
        """Time of every step when it last ran with ``profile`` set."""
        return [self.times[at] for at in range(self.count)]
