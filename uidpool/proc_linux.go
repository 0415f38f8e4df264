package uidpool

func supported() error { return nil }
