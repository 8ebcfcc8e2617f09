package admission

import "time"

const (
	// gateLinger is how long a window of syncs stays open after its last one: files that are due together come one after the other.
	gateLinger = 3 * time.Millisecond
	// gateIdle without a cold read in flight ends the reads' slot: they wait for a budget, or for their clients.
	gateIdle = 10 * time.Millisecond
	// gateWindow is what a window may take before no further sync begins in it and reads need not wait for its end: a device that
	// hangs, or is given more writes than it takes, must not starve them.
	gateWindow = time.Second
	// gateSlot bounds the reads' slot between two windows: amortised seeks below, a wait that producers can bear above.
	gateSlotMin = 30 * time.Millisecond
	gateSlotMax = 500 * time.Millisecond
	// gateCold is for how long after the last cold read syncs still heed them.
	gateCold = 500 * time.Millisecond
)

// Gate has the syncs and the cold reads of one head take turns, for each in the middle of the other costs both a seek, and a sync
// that queues behind megabytes of reads is what producers feel.
//
//	syncs   ██████          ███████           ██            no cold reads about: syncs begin as they come
//	reads         ▒▒▒▒▒▒▒▒▒        ▒▒▒▒▒▒▒▒▒▒▒  ▒▒▒▒▒▒
//	        window    slot   window     slot
//
// A window begins with the first sync that is due, takes in whatever falls due meanwhile, each file once, and closes when
// all are done. After it reads are sure of a slot as long as the window was, if they use it. Refills do not ask.
// Pure: it is given the time. Not safe for concurrent use; its Schedulers' lock guards it. One per device.
type Gate struct {
	syncing int  // on their way
	open    bool // a window
	round   uint64
	opened  time.Time
	ended   time.Time     // the last sync
	took    time.Duration // the last window
	total   time.Duration // all windows

	reading int       // cold reads in flight
	readAt  time.Time // one began, ended, or was held
	held    time.Duration
	heldAt  time.Time // since then reads are held; zero: they are not
}

// settle closes a window in which nothing happens any more.
func (g *Gate) settle(now time.Time) {
	if g.open && g.syncing == 0 && now.Sub(g.ended) >= gateLinger {
		g.open, g.took = false, g.ended.Sub(g.opened)
		g.total += g.took
	}
}

// slotEnd is until when the reads' slot after the last window lasts.
func (g *Gate) slotEnd() time.Time {
	return g.ended.Add(min(max(g.took, gateSlotMin), gateSlotMax))
}

// BeginSync asks for one sync to begin. last is what it answered for this file the last time, 0 before the first. When it may
// not, wait says when to ask again. One that has begun must be ended with EndSync.
func (g *Gate) BeginSync(last uint64, now time.Time) (round uint64, wait time.Duration, ok bool) {
	g.settle(now)
	switch cold := g.reading > 0 || now.Sub(g.readAt) < gateCold; {
	case !cold:
	case g.open && (last == g.round || now.Sub(g.opened) > gateWindow):
		if g.syncing > 0 {
			return 0, gateIdle, false
		}
		return 0, gateLinger, false
	case g.open || g.round == 0:
	default:
		wait = g.slotEnd().Sub(now)
		if g.reading == 0 {
			wait = min(wait, later(g.ended, g.readAt).Add(gateIdle).Sub(now))
		}
		if wait > 0 {
			return 0, min(wait, gateIdle), false
		}
	}
	if !g.open {
		g.open, g.opened = true, now
		g.round++
	}
	g.syncing++
	return g.round, 0, true
}

// EndSync ends a sync. Reads may go on gateLinger later, if it was the last one.
func (g *Gate) EndSync(now time.Time) {
	g.syncing--
	g.ended = now
}

// holdsReads tells whether reads wait for syncs now, and for how long at most unless one ends.
func (g *Gate) holdsReads(now time.Time) (wait time.Duration, held bool) {
	g.settle(now)
	g.readAt = now
	switch {
	case !g.open:
	case g.syncing == 0:
		wait = g.ended.Add(gateLinger).Sub(now)
	default:
		wait = g.opened.Add(gateWindow).Sub(now)
	}
	switch {
	case wait > 0 && g.heldAt.IsZero():
		g.heldAt = now
	case wait <= 0 && !g.heldAt.IsZero():
		g.held += now.Sub(g.heldAt)
		g.heldAt = time.Time{}
	}
	return wait, wait > 0
}

func (g *Gate) beginRead(now time.Time) { g.reading, g.readAt = g.reading+1, now }
func (g *Gate) endRead(now time.Time)   { g.reading, g.readAt = g.reading-1, now }

// GateView is what a gate has done since the start.
type GateView struct {
	Windows uint64
	Open    time.Duration // the windows together, but for one that is open
	Held    time.Duration // in which cold reads waited
}

// View is the gate for people.
func (g *Gate) View() GateView { return GateView{g.round, g.total, g.held} }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
