package classic

import "time"

// MayCommitTxn checks a commit that is part of a transaction. A producer that does not know the consumer's place in the group (before
// KIP-447) says nothing about it and may commit at any time.
func (g *Group) MayCommitTxn(now time.Time, memberID, instanceID string, generation int32) Error {
	if g.state == Dead {
		return CoordinatorNotAvailable
	}
	if generation < 0 && (g.state == Empty || memberID == "" && instanceID == "") {
		return None
	}
	m, err := g.known(memberID, instanceID)
	switch {
	case err != None:
		return err
	case generation != g.generation:
		return IllegalGeneration
	}
	m.watch(now)
	return None
}
