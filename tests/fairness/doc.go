// Package fairness shows, on the real binary over a throttled disk, that consumers share it as they are told to: equal
// weights and 3:1 (Shares), and that one which retention is about to overtake wins its race (RetentionRace, with
// and without the boost). Client ids stand for groups. About a minute; needs root and loop devices.
package fairness
