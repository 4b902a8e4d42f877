//! Ships the journal to the control plane and remembers what it has acknowledged.
