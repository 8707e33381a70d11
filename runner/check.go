package runner

// Check tells before anything is done whether Transmit would take the options:
// nil, ErrNoPrivateDataDir or ErrOptions, wrapped with what is wrong.
func (o Options) Check() error {
	if _, err := checkDir(o.PrivateDataDir); err != nil {
		return err
	}
	return o.check()
}
