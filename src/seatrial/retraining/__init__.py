"""alert -> approval -> run: when is a new model proposed, is it better, and who said yes?"""
