package agent

import (
	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/uidpool"

	"go.uber.org/zap"
)

// cleaner removes what a uid's processes left behind, where its pool says so.
type cleaner struct {
	seam seam.Seam
	log  *zap.Logger
}

// RemoveIPC implements [uidpool.Cleaner].
func (c cleaner) RemoveIPC(o uidpool.IPCObject) error {
	err := c.seam.Do("ipc:"+o.Kind+":remove", func() error { return removeIPC(o) })
	c.say("removed an object of System V IPC", zap.Stringer("object", o), zap.Stringer("uid", o.UID), err)
	return err
}

// RemoveShared implements [uidpool.Cleaner].
func (c cleaner) RemoveShared(path string) error {
	err := c.seam.Remove("shared", path)
	c.say("removed a shared memory object or message queue", zap.String("path", path), zap.Skip(), err)
	return err
}

// ClearKeyring implements [uidpool.Cleaner].
func (c cleaner) ClearKeyring(uid uidpool.UID) error {
	err := clearKeyring(c.seam, uid)
	c.say("cleared a user keyring", zap.Stringer("uid", uid), zap.Skip(), err)
	return err
}

func (c cleaner) say(what string, of, whose zap.Field, err error) {
	if err != nil {
		c.log.Warn("residue not removed", of, whose, zap.Error(err))
		return
	}
	c.log.Info(what, of, whose)
}
