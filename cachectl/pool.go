package cachectl

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultIdleTrim is how long a free buffer is kept before its memory goes back to the kernel.
const DefaultIdleTrim = 10 * time.Second

// maxPoolBuffers bounds the number of mappings of one pool, well below vm.max_map_count (65530).
const maxPoolBuffers = 16384

// Pool is a bounded pool of equal, page-aligned, reference-counted buffers outside the Go heap, so that hundreds of MiB
// of read-ahead cost the garbage collector nothing. Memory is mapped when it is first needed; what was not needed for
// DefaultIdleTrim is unmapped by a timer (the pool owns no goroutine). Chunks from 512 KiB on lie in huge pages where the
// kernel has any, small ones together, so that a device is read in as few requests as it allows; memory is bounded all the same.
//
//	          Get, TryGet                  Release of the last reference
//	(unmapped) ─────────► in use ─────────────────────► waiter, else free ──10 s unneeded──► (unmapped)
//
// Waiters are served first come, first served, and TryGet never overtakes them. Safe for concurrent use.
type Pool struct {
	chunkBytes int64
	limit      int // buffers
	perSlab    int

	mu      sync.Mutex
	free    []piece // last used last: the warmest is taken first
	spare   int     // fewest free buffers since the last trim: those were not needed
	mapped  int     // free and in use
	inUse   int
	waiters list.List // of *waiter, oldest first
	timer   *time.Timer
	closed  bool

	waits     int64
	waited    time.Duration
	trimmed   int64
	mapErrors int64
}

// slab is one mapping: a buffer, or so many that together they fill a huge page. It is unmapped when all of them are free.
type slab struct {
	mem    []byte
	pieces int
}

// piece is the memory of one buffer.
type piece struct {
	mem  []byte
	slab *slab
}

type waiter struct {
	ready chan struct{} // closed when buf or err is set
	buf   *Buffer
	err   error
}

// PoolStats is one consistent view of a pool.
type PoolStats struct {
	CapacityBytes int64
	ChunkBytes    int64
	MappedBytes   int64 // memory held now
	InUseBytes    int64 // of it handed out
	Waiting       int   // Gets that wait now
	Waits         int64 // Gets that had to wait, since the start
	Waited        time.Duration
	TrimmedBytes  int64 // given back to the kernel, since the start
	MapErrors     int64 // times the kernel refused to map or unmap a buffer
}

// NewPool makes a pool of totalBytes/chunkBytes buffers. chunkBytes is a multiple of PageSize, totalBytes at least
// chunkBytes. Nothing is allocated yet. ErrOptions otherwise.
func NewPool(totalBytes, chunkBytes int64) (*Pool, error) {
	if chunkBytes <= 0 || chunkBytes%PageSize != 0 {
		return nil, fmt.Errorf("%w: pool chunk of %d bytes is not a positive multiple of %d", ErrOptions, chunkBytes, PageSize)
	}
	if totalBytes < chunkBytes || totalBytes/chunkBytes > maxPoolBuffers {
		return nil, fmt.Errorf("%w: pool of %d bytes with chunks of %d: must hold 1 to %d chunks",
			ErrOptions, totalBytes, chunkBytes, maxPoolBuffers)
	}
	return &Pool{chunkBytes: chunkBytes, limit: int(totalBytes / chunkBytes), perSlab: slabPieces(chunkBytes)}, nil
}

// ChunkBytes is the size of every buffer.
func (p *Pool) ChunkBytes() int64 { return p.chunkBytes }

// Buffer is one chunk of a Pool. It lives while references to it exist; its memory must not be touched after.
type Buffer struct {
	pool *Pool
	piece
	refs atomic.Int32
}

// Bytes is the whole chunk, aligned to PageSize. Its content at Get is undefined. It panics after the last Release.
func (b *Buffer) Bytes() []byte {
	if b.refs.Load() <= 0 {
		panic("cachectl: Buffer used after its last Release")
	}
	return b.mem
}

// Wanted tells whether somebody waits for a buffer of the pool.
func (b *Buffer) Wanted() bool {
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	return b.pool.waiters.Len() > 0
}

// Retain adds a reference. Only a holder of one may call it; it panics after the last Release.
func (b *Buffer) Retain() {
	if b.refs.Add(1) <= 1 {
		b.refs.Add(-1) // it stays dead
		panic("cachectl: Buffer retained after its last Release")
	}
}

// Release gives one reference back; the last one gives the memory back. One Release too many panics.
func (b *Buffer) Release() {
	switch refs := b.refs.Add(-1); {
	case refs > 0:
	case refs < 0:
		b.refs.Add(1)
		panic("cachectl: Buffer released more often than retained")
	default:
		b.pool.put(b.piece)
	}
}

// Get hands out a buffer with one reference, waiting for one in order of arrival. Errors: ctx's, ErrPoolClosed, or the
// kernel's when it has no memory.
func (p *Pool) Get(ctx context.Context) (*Buffer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("buffer pool: %w", err)
	}
	p.mu.Lock()
	if b, ok, err := p.takeLocked(); ok || err != nil {
		p.mu.Unlock()
		return b, err
	}
	w := &waiter{ready: make(chan struct{})}
	place := p.waiters.PushBack(w)
	p.waits++
	p.mu.Unlock()

	began := time.Now()
	select {
	case <-w.ready:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited += time.Since(began)
	select {
	case <-w.ready: // served, perhaps at the same moment as ctx ended: a buffer in hand is used
		return w.buf, w.err
	default:
		p.waiters.Remove(place)
		return nil, fmt.Errorf("buffer pool: %w", ctx.Err())
	}
}

// TryGet is Get that does not wait. False: none free, others wait already, no memory, or the pool is closed.
func (p *Pool) TryGet() (*Buffer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok, _ := p.takeLocked()
	return b, ok
}

// takeLocked takes a free buffer or maps a new one; ok is false when the caller has to wait.
func (p *Pool) takeLocked() (b *Buffer, ok bool, err error) {
	if p.closed {
		return nil, false, fmt.Errorf("buffer pool: %w", ErrPoolClosed)
	}
	if p.waiters.Len() > 0 {
		return nil, false, nil
	}
	if len(p.free) == 0 {
		if p.mapped == p.limit {
			return nil, false, nil
		}
		if err := p.mapLocked(); err != nil {
			p.mapErrors++
			if p.inUse > 0 {
				return nil, false, nil // no memory for more: wait for one of ours
			}
			return nil, false, fmt.Errorf("buffer pool: map %d bytes: %w", p.chunkBytes, err)
		}
	}
	last := len(p.free) - 1
	m := p.free[last]
	p.free = p.free[:last]
	p.spare = min(p.spare, last)
	return p.handOutLocked(m), true, nil
}

// mapLocked adds a slab to the free buffers.
func (p *Pool) mapLocked() error {
	n := min(p.perSlab, p.limit-p.mapped)
	mem, err := mapChunk(int64(n) * p.chunkBytes)
	if err != nil {
		return err
	}
	poison(mem)
	s := &slab{mem: mem, pieces: n}
	for i := range int64(n) {
		p.free = append(p.free, piece{mem[i*p.chunkBytes : (i+1)*p.chunkBytes : (i+1)*p.chunkBytes], s})
	}
	p.mapped += n
	return nil
}

// handOutLocked wraps memory in a new Buffer, so that a stale handle of an earlier user stays dead.
func (p *Pool) handOutLocked(m piece) *Buffer {
	checkPoison(m.mem)
	p.inUse++
	b := &Buffer{pool: p, piece: m}
	b.refs.Store(1)
	return b
}

func (p *Pool) put(m piece) {
	poison(m.mem)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inUse--
	if front := p.waiters.Front(); front != nil {
		w := p.waiters.Remove(front).(*waiter)
		w.buf = p.handOutLocked(m)
		close(w.ready)
		return
	}
	p.free = append(p.free, m)
	if p.closed {
		p.unmapLocked(len(p.free))
		return
	}
	if p.timer == nil {
		p.spare = 0 // this one was in use until now
		p.timer = time.AfterFunc(DefaultIdleTrim, p.trim)
	}
}

// trim gives back what was free all the time since the last trim, and comes again while anything is free.
func (p *Pool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.trimmed += p.unmapLocked(p.spare) // the coldest are in front
	p.spare = len(p.free)
	p.timer = nil
	if len(p.free) > 0 {
		p.timer = time.AfterFunc(DefaultIdleTrim, p.trim)
	}
}

// unmapLocked gives back the slabs of which all buffers are among the first n free ones. It returns how many bytes.
func (p *Pool) unmapLocked(n int) (bytes int64) {
	idle := map[*slab]int{}
	for _, m := range p.free[:n] {
		idle[m.slab]++
	}
	p.free = slices.DeleteFunc(p.free, func(m piece) bool { return idle[m.slab] == m.slab.pieces })
	for s, n := range idle {
		if n < s.pieces {
			continue
		}
		p.mapped -= n
		bytes += int64(len(s.mem))
		if err := unmapChunk(s.mem); err != nil {
			p.mapErrors++ // only possible for a slice that is not ours; the memory is lost, nothing else
		}
	}
	return bytes
}

// Stats is safe at any time.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStats{
		CapacityBytes: int64(p.limit) * p.chunkBytes,
		ChunkBytes:    p.chunkBytes,
		MappedBytes:   int64(p.mapped) * p.chunkBytes,
		InUseBytes:    int64(p.inUse) * p.chunkBytes,
		Waiting:       p.waiters.Len(),
		Waits:         p.waits,
		Waited:        p.waited,
		TrimmedBytes:  p.trimmed,
		MapErrors:     p.mapErrors,
	}
}

// Close frees all memory that nobody uses and fails every present and later Get with ErrPoolClosed. Buffers in use stay
// valid and are freed by their last Release. Close may be called again.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.unmapLocked(len(p.free))
	for front := p.waiters.Front(); front != nil; front = p.waiters.Front() {
		w := p.waiters.Remove(front).(*waiter)
		w.err = fmt.Errorf("buffer pool: %w", ErrPoolClosed)
		close(w.ready)
	}
}

// Register exports the pool's gauges. One pool per Registerer.
func (p *Pool) Register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	return reg.Register(poolCollector{p})
}

type poolCollector struct{ pool *Pool }

var (
	poolCapacity = prometheus.NewDesc("lagoon_cachectl_pool_capacity_bytes", "Most memory that the bypass buffer pool may hold.", nil, nil)
	poolMapped   = prometheus.NewDesc("lagoon_cachectl_pool_mapped_bytes", "Memory that the bypass buffer pool holds now.", nil, nil)
	poolInUse    = prometheus.NewDesc("lagoon_cachectl_pool_in_use_bytes", "Memory of the bypass buffer pool that is handed out.", nil, nil)
	poolWaiting  = prometheus.NewDesc("lagoon_cachectl_pool_waiting", "Requests that wait for a bypass buffer.", nil, nil)
	poolWaits    = prometheus.NewDesc("lagoon_cachectl_pool_waits_total", "Requests that had to wait for a bypass buffer.", nil, nil)
	poolWaited   = prometheus.NewDesc("lagoon_cachectl_pool_wait_seconds_total", "Time spent waiting for a bypass buffer.", nil, nil)
	poolTrimmed  = prometheus.NewDesc("lagoon_cachectl_pool_trimmed_bytes_total", "Idle memory that the bypass buffer pool gave back.", nil, nil)
)

// Describe implements prometheus.Collector.
func (poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolCapacity, poolMapped, poolInUse, poolWaiting, poolWaits, poolWaited, poolTrimmed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.pool.Stats()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(poolCapacity, float64(s.CapacityBytes))
	gauge(poolMapped, float64(s.MappedBytes))
	gauge(poolInUse, float64(s.InUseBytes))
	gauge(poolWaiting, float64(s.Waiting))
	counter(poolWaits, float64(s.Waits))
	counter(poolWaited, s.Waited.Seconds())
	counter(poolTrimmed, float64(s.TrimmedBytes))
}
