package inode

import (
	"os/user"
	"strconv"
	"sync"
)

// Names looks up the names of users and groups, each once.
type Names struct {
	mu     sync.RWMutex
	users  map[uint32]string
	groups map[uint32]string
}

// NewNames returns Names that know none yet.
func NewNames() *Names {
	return &Names{users: map[uint32]string{}, groups: map[uint32]string{}}
}

// Of returns the names of a user and a group, empty where they have none.
func (n *Names) Of(uid, gid uint32) (userName, groupName string) {
	n.mu.RLock()
	userName, ok1 := n.users[uid]
	groupName, ok2 := n.groups[gid]
	n.mu.RUnlock()
	if ok1 && ok2 {
		return userName, groupName
	}
	// The lookup may ask a directory service: do it without the lock. Two may ask at once; both get the same answer.
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		userName = u.Username
	}
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
		groupName = g.Name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.users[uid], n.groups[gid] = userName, groupName
	return userName, groupName
}
