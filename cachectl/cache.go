package cachectl

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/vfs"
)

// ReadMode chooses how lagging readers' bytes are read (`read_mode` of the configuration).
type ReadMode string

// Read modes. A mode other than auto starts the ladder at its own method and is not demoted by verification; where the
// method cannot work at all (an active segment has no O_DIRECT, tmpfs has no RWF_DONTCACHE), the methods below it serve.
const (
	ModeAuto       ReadMode = "auto"
	ModeDirect     ReadMode = "direct"
	ModeDontCache  ReadMode = "dontcache"
	ModeDropBehind ReadMode = "dropbehind"
	ModeBuffered   ReadMode = "buffered" // leaves its pages behind: for comparison tests
)

// Method is one rung of the ladder, best first.
type Method string

// Methods in ladder order. The names are metric labels.
const (
	MethodDirect     Method = "direct"     // O_DIRECT on an own descriptor; sealed files only
	MethodDontCache  Method = "dontcache"  // preadv2(RWF_DONTCACHE)
	MethodDropBehind Method = "dropbehind" // buffered, then FADV_DONTNEED over pages that were not resident before
	MethodBuffered   Method = "buffered"   // plain read; the pages stay
)

// Methods lists all methods in ladder order.
func Methods() []Method {
	return []Method{MethodDirect, MethodDontCache, MethodDropBehind, MethodBuffered}
}

// ParseReadMode accepts the five mode names; the empty string is auto.
func ParseReadMode(s string) (ReadMode, error) {
	switch m := ReadMode(s); m {
	case "":
		return ModeAuto, nil
	case ModeAuto, ModeDirect, ModeDontCache, ModeDropBehind, ModeBuffered:
		return m, nil
	}
	return "", fmt.Errorf("%w: read mode %q is none of auto, direct, dontcache, dropbehind, buffered", ErrOptions, s)
}

// Options configures a Cache. The zero value is usable.
type Options struct {
	// ReadMode: default auto.
	ReadMode ReadMode
	// VerifyEvery: one bypass read in this many is verified by residency before and after. 1 verifies each, negative
	// none. Default 64 (a guess: two cachestat calls of about 1 µs each per 64 MiB).
	VerifyEvery int64
	// DemoteAfter: failed verifications in a row after which a method leaves a file system's ladder. Default 3.
	DemoteAfter int
	// MaxLeftRatio: a verification fails when more than this share of the pages that were not resident before is
	// resident afterwards. 0 < ratio < 1, default 0.02.
	MaxLeftRatio float64
	// Logger: nil discards.
	Logger *slog.Logger
	// Registerer: nil keeps metrics unregistered.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.ReadMode == "" {
		o.ReadMode = ModeAuto
	}
	if o.VerifyEvery == 0 {
		o.VerifyEvery = 64
	}
	if o.DemoteAfter == 0 {
		o.DemoteAfter = 3
	}
	if o.MaxLeftRatio == 0 {
		o.MaxLeftRatio = 0.02
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate reports every field outside its limits, joined; each error is ErrOptions. Zero fields are fine.
func (o Options) Validate() error {
	var errs []error
	if _, err := ParseReadMode(string(o.ReadMode)); err != nil {
		errs = append(errs, err)
	}
	if o.DemoteAfter < 0 {
		errs = append(errs, fmt.Errorf("%w: DemoteAfter %d is negative", ErrOptions, o.DemoteAfter))
	}
	if o.MaxLeftRatio < 0 || o.MaxLeftRatio >= 1 {
		errs = append(errs, fmt.Errorf("%w: MaxLeftRatio %v is not in (0, 1)", ErrOptions, o.MaxLeftRatio))
	}
	return errors.Join(errs...)
}

// Cache is the page cache as an object. Safe for concurrent use; it owns no goroutine and no file.
type Cache struct {
	kernel  Kernel
	opt     Options
	metrics *metrics

	noCachestat atomic.Bool            // process-wide, set once: mincore from then on
	noPins      atomic.Pointer[string] // process-wide, set once: why
	reads       atomic.Int64

	mu      sync.Mutex
	ladders map[uint64]*ladder // by file system
}

// New makes a Cache over k. It panics on options that Validate refuses (a programmer error: validate first).
func New(k Kernel, opt Options) *Cache {
	if err := opt.Validate(); err != nil {
		panic(err)
	}
	opt = opt.withDefaults()
	return &Cache{
		kernel:  k,
		opt:     opt,
		metrics: newMetrics(opt.Registerer),
		ladders: make(map[uint64]*ladder),
	}
}

// Residency is what is known about the pages that [pos, pos+n) touches.
type Residency struct {
	Pages           int64 // pages the range touches, in units of PageSize
	Resident        int64 // of them in the page cache
	Dirty           int64 // the rest is known with cachestat only
	Writeback       int64
	Evicted         int64
	RecentlyEvicted int64
	Method          string // "cachestat" or "mincore"
}

// Source is one file to read around the cache.
type Source struct {
	// Buffered is an own descriptor for lagging reads: its advice (no read-ahead) must not fall on real-time readers.
	Buffered vfs.File
	// Direct opens or borrows the O_DIRECT descriptor; nil: the file is not sealed, or has dirty pages. The file stays
	// its provider's and must live until ReadBypass returns.
	Direct func() (vfs.File, error)
	// Size bounds the read: the first byte that must not be returned. Bytes.
	Size int64
}

// ReadStat tells how one bypass read went. The bytes are buf.Bytes()[Off : Off+N].
type ReadStat struct {
	N         int64  // bytes from the asked position on; shorter than asked at Source.Size or where the buffer ends
	Off       int    // where the asked position lies in the buffer (direct reads start earlier, aligned)
	Method    Method // how it was read
	Verified  bool   // residency was compared before and after
	LeftPages int64  // pages not resident before and resident after; only if Verified
}
