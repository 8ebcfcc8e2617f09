// Package fairness shows, on the real binary over a throttled disk, that consumers share it as they are told to: equal
// weights and 3:1 (TestShares), and that one which retention is about to overtake wins its race (TestRetentionRace, with
// and without the boost). Client ids stand for groups. About two minutes; needs root and loop devices.
package fairness
