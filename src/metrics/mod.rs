//! Every metric of the server, and the pages that expose them.
