//! The connection table: kernel accepts and proxy sessions enter, one record per connection leaves.
