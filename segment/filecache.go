package segment

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// FileCacheOptions bounds what sealed segments may hold open. The zero value means the defaults.
type FileCacheOptions struct {
	MaxOpenFiles  int   // descriptors of sealed segments; default 4096
	MaxIndexBytes int64 // memory of loaded indexes; default 64 MiB
	// OnCorrupt, when set, hears of damage found while reading: a bad index (it was rebuilt), a bad range in a log (it
	// is stepped over). Called without locks, on the reading goroutine.
	OnCorrupt func(*CorruptError)
	// OnError, when set, hears of errors that have no caller to go to: closing a descriptor, saving a rebuilt index.
	OnError func(error)
}

// FileCache bounds the descriptors and the index memory of all sealed segments of a process, ten thousands of them. It
// never closes a descriptor in use: while more readers are acquired than MaxOpenFiles, the bound is exceeded.
// Safe for concurrent use. Lock order: a Reader's mu and the cache's mu are never held together.
type FileCache struct {
	opt FileCacheOptions

	mu         sync.Mutex
	files      *simplelru.LRU[*Reader, struct{}]
	indexes    *simplelru.LRU[*Reader, int64]
	indexBytes int64
}

// NewFileCache makes an empty cache.
func NewFileCache(opt FileCacheOptions) *FileCache {
	if opt.MaxOpenFiles <= 0 {
		opt.MaxOpenFiles = 4096
	}
	if opt.MaxIndexBytes <= 0 {
		opt.MaxIndexBytes = 64 << 20
	}
	c := &FileCache{opt: opt}
	// Never full by themselves: what goes is decided here, because a pinned entry must stay. The constructors fail
	// only for a size that is not positive.
	c.files, _ = simplelru.NewLRU[*Reader, struct{}](math.MaxInt, nil)
	c.indexes, _ = simplelru.NewLRU[*Reader, int64](math.MaxInt, nil)
	return c
}

// Open is the number of descriptors of sealed segments.
func (c *FileCache) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files.Len()
}

// IndexBytes is the memory of loaded indexes.
func (c *FileCache) IndexBytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.indexBytes
}

// addFile notes that r has its descriptor open, and closes the least recently used ones above the bound.
func (c *FileCache) addFile(r *Reader) {
	c.mu.Lock()
	if r.file.Load() != nil { // else it was retired meanwhile, and forget has come and gone
		c.files.Add(r, struct{}{})
	}
	excess := c.files.Len() - c.opt.MaxOpenFiles
	tries := c.files.Len()
	c.mu.Unlock()
	for ; excess > 0 && tries > 0; tries-- {
		victim, ok := c.oldestFile()
		if !ok {
			return
		}
		if victim.closeIdle() {
			excess--
		} else {
			c.keepFile(victim)
		}
	}
}

// oldestFile takes out the least recently used entry. One that was used since it was last looked at gets another round.
func (c *FileCache) oldestFile() (*Reader, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range c.files.Len() {
		r, _, _ := c.files.GetOldest()
		if !r.hot.Swap(false) {
			c.files.Remove(r)
			return r, true
		}
		c.files.Get(r)
	}
	r, _, ok := c.files.RemoveOldest()
	return r, ok
}

// keepFile puts a reader back that could not be closed; unless it was retired meanwhile and closed itself.
func (c *FileCache) keepFile(r *Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.file.Load() != nil {
		c.files.Add(r, struct{}{})
	}
}

// addIndex notes that r holds an index of n bytes, and drops the least recently loaded ones above the bound. A lookup
// in progress keeps its index until it is done.
func (c *FileCache) addIndex(r *Reader, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropIndexLocked(r)
	if r.word.Load()&retiredBit != 0 && r.word.Load()&usersMask == 0 {
		return // retired meanwhile: nobody will look
	}
	c.indexes.Add(r, n)
	c.indexBytes += n
	for c.indexBytes > c.opt.MaxIndexBytes && c.indexes.Len() > 1 {
		victim, size, _ := c.indexes.RemoveOldest()
		c.indexBytes -= size
		victim.idx.Store(nil)
	}
}

func (c *FileCache) dropIndexLocked(r *Reader) {
	if n, ok := c.indexes.Peek(r); ok {
		c.indexes.Remove(r)
		c.indexBytes -= n
	}
}

// touchIndex marks r's index as used. Called on seeks, not on every read.
func (c *FileCache) touchIndex(r *Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.indexes.Get(r)
}

// forget takes a retired reader out.
func (c *FileCache) forget(r *Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files.Remove(r)
	c.dropIndexLocked(r)
}

func (c *FileCache) closed(err error) {
	if err != nil {
		c.complain(fmt.Errorf("close segment: %w", err))
	}
}

func (c *FileCache) complain(err error) {
	if c.opt.OnError != nil {
		c.opt.OnError(err)
	}
}

func (c *FileCache) report(err error) {
	if corrupt, ok := errors.AsType[*CorruptError](err); ok && c.opt.OnCorrupt != nil {
		c.opt.OnCorrupt(corrupt)
	}
}
