package metadata

import (
	"context"
	"sync"
)

// keyedMutex is one lock per name, made on demand and dropped when nobody holds or wants it.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[string]*namedLock
}

type namedLock struct {
	token chan struct{} // holds one value while the lock is free
	users int           // holder and waiters; guarded by keyedMutex.mu
}

func (k *keyedMutex) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		if k.locks == nil {
			k.locks = map[string]*namedLock{}
		}
		l = &namedLock{token: make(chan struct{}, 1)}
		l.token <- struct{}{}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()

	select {
	case <-l.token:
		return func() {
			l.token <- struct{}{}
			k.leave(name, l)
		}, nil
	case <-ctx.Done():
		k.leave(name, l)
		return nil, ctx.Err()
	}
}

func (k *keyedMutex) leave(name string, l *namedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
